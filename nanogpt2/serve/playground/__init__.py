"""In: a trained model. Out: one HTML file that holds it and writes with it, without a network."""
