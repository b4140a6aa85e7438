"""In: a corpus. Out: what is counted while it is read once, in bounded memory, and where."""
