"""A browser for the tests of pages, started once."""

from collections.abc import Iterator

import pytest
from browser import CHROMIUM, Browser, chromium


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: the page is tested in one")
    with chromium() as found:
        yield found
