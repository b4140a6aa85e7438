"""Of tests that are alike and take long, `make test` runs some, and `make test-all` runs each.

What a person would see go wrong has its test in both: what is left out are further variants,
further examples, and a second way through what another test has gone through.
"""

import os
from collections.abc import Iterable
from typing import Any

import pytest

EVERY = bool(os.environ.get("NANOGPT2_EVERY_TEST"))
EXAMPLES = 50 if EVERY else 20  # of what hypothesis makes up


def some(values: Iterable[Any], *chosen: Any) -> list[Any]:
    """Return those of `values` that are `chosen`, or each where every test is asked for."""
    values = list(values)
    assert all(value in values for value in chosen), chosen
    return values if EVERY else list(chosen)


def in_every(why: str) -> pytest.MarkDecorator:
    """Return a mark for a test that `make test` leaves out, because of `why`."""
    return pytest.mark.skipif(not EVERY, reason=f"{why}; make test-all runs it")
