"""In: documents in blocks. Out: the same without what is no text, and counts of what went."""
