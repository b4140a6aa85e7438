"""In: a model, and texts to draw at any time. Out: their tokens, side by side, each as if alone."""
