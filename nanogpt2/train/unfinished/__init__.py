"""In: states of a run. Out: files of those that serve after a crash; they are written aside."""
