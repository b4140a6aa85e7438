"""In: a corpus. Out: token files in `data/prepared`, their tokenizer, and what they hold.

Or, before a run, what would stop it.
"""
