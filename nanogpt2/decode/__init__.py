"""In: a model and prompts of tokens. Out: one token after another, quickly."""
