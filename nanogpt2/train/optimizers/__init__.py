"""In: weights and their gradients. Out: updated weights, and their running mean."""
