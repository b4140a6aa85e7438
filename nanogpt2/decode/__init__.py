"""In: a model, what is cached, and the next tokens. Out: logits, and tokens drawn from them."""
