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


def name_some(names: Sequence[object], most: int) -> str:
    """Return the first `most` of `names`, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
