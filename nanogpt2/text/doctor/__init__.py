"""In: the counts of a corpus. Out: what is wrong with it, for people and as JSON; its card."""
