"""In: a model, its tokenizer and prompts. Out: texts, whole or as they come."""
