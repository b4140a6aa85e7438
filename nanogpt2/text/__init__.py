"""In: a corpus, any text. Out: token files of its splits, and what is wrong with it, in words."""
