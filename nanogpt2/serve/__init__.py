"""In: models, and requests over HTTP. Out: their answers, drawn side by side, and a page; or a file
that holds a model and its page."""
