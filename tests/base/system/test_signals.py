"""Signals ask a run to end at its next safe moment."""

import signal

import pytest

from nanogpt2.base.system.signals import Interrupted, caught_signals


def test_a_second_signal_of_another_kind_leaves_the_name_of_the_first() -> None:
    with caught_signals() as interruption:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGINT"):
            interruption.check()
