"""In: a corpus and a folder that several machines see. Out: the data that one would prepare."""
