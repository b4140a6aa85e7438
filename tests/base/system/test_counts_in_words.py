"""Figures in words: one of a thing is no plural."""

from nanogpt2.base.system.words import counted, describe_amount, describe_work


def test_one_thing_is_named_as_one() -> None:
    assert [counted(n, "run") for n in (0, 1, 2, 1000)] == [
        "0 runs",
        "1 run",
        "2 runs",
        "1,000 runs",
    ]
    assert [describe_amount(n, "tokens") for n in (0.7, 1, 12)] == [
        *("0.7 tokens", "1 token", "12 tokens")
    ]
    assert describe_work(1, "tokens", 2.0, what="of it") == "1 token of it in 2.0 s (0.5 tokens/s)"
