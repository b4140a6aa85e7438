"""In: a model, its tokenizer and prompts. Out: drawn tokens and texts, whole or as they come."""
