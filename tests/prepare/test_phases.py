"""What a long preparation shows: its phases in bytes, as the screen shows phases."""

import pytest

from nanogpt2.prepare.phases import Phases
from nanogpt2.screen.screen import running
from nanogpt2.screen.state import VERBOSE


def test_each_phase_is_one_of_the_screen_and_a_line_at_its_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running("prepare", [VERBOSE]):
        shown = Phases()
        for phase, size in (("read", 1 << 26), ("encode", 1000)):
            for done in range(5):
                shown.progress(phase, done * size // 4, size)
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()[:2]
    assert first.startswith("read: 67.1 MB in 0.")
    assert second.startswith("encode: 1.0 kB in 0.")
