"""The numbers on which the search for copies stands, in Python and in C (windows.c)."""

WINDOW = 16  # characters that are no white space
REACH = 256  # characters that a window may cover, white space and all
PERIOD = 8  # a window that repeats itself within so many characters is a rule, not a text
BASE = 0x9E3779B97F4A7C15  # of the polynomial hash: odd
SPREAD = 0xD6E8FEB86659FD93  # times the hash: then its high bits depend on all of a window
MASK = (1 << 64) - 1
GRAM = 5  # characters of which similarity is counted
