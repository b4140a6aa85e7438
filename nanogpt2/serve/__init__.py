"""In: models and requests over HTTP. Out: their answers, drawn side by side, each as if alone."""
