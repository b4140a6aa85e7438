"""Figures and lists in words, as people read them."""

from collections.abc import Sequence


def describe_seconds(seconds: float) -> str:
    """Return a duration in words: 42s, 3m 05s, 2h 10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def describe_time(seconds: float) -> str:
    """Return a duration in words, a short one to a tenth of a second: 0.4 s, 12.3 s, 3m 05s."""
    return f"{seconds:.1f} s" if seconds < 59.95 else describe_seconds(seconds)


def counted(number: int, thing: str) -> str:
    """Return how many there are of a `thing`: 0 runs, 1 run, 1,000 runs."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def describe_amount(amount: float, unit: str) -> str:
    """Return an amount of `unit` in words: 57,000 tokens, 1 token, 4.7 MB (unit B)."""
    if unit != "B":
        unit = unit.removesuffix("s") if amount == 1 else unit
        return f"{amount:,.0f} {unit}" if amount >= 10 else f"{amount:.2g} {unit}"
    for power, name in ((9, "GB"), (6, "MB"), (3, "kB")):
        if amount >= 10**power:
            return f"{amount / 10**power:,.1f} {name}"
    return f"{amount:,.0f} B"


def describe_work(amount: float, unit: str, seconds: float, *, what: str = "") -> str:
    """Return what was done, how long it took and how quick that was, to three digits.

    700,508 tokens of val in 12.3 s (57,000 tokens/s)
    """
    speed = describe_amount(float(f"{amount / max(seconds, 1e-3):.3g}"), unit)
    words = " ".join(filter(None, (describe_amount(amount, unit), what)))
    return f"{words} in {describe_time(seconds)} ({speed}/s)"


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of as many cells as lines, in which the cells of a column begin at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def name_some(names: Sequence[object], most: int) -> str:
    """Return the first `most` of `names`, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
