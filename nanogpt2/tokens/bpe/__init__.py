"""In: words in UTF-8. Out: the merges that make tokens of them, and GPT-2's own; their encoding."""
