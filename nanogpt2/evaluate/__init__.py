"""In: a model and text. Out: losses over whole splits, surprise by token, what samples copy."""
