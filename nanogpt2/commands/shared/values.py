"""Values that options take: what they are by default, and which are refused."""

from pathlib import Path

STATES = Path(".resume")  # where training keeps states of runs that are not over
