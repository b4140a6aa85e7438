"""In: models of one tokenizer. Out: the mean of their probabilities, as one model gives it."""
