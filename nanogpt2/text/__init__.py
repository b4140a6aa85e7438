"""In: any text. Out: texts in one form; or what would stop a run, in words."""
