"""In: any text. Out: texts in one form; or what is wrong with a file, in words."""
