"""In: a corpus. Out: its documents in one form, cleaned, in segments of some MB on disk."""
