"""Out: a trained model in the files of other programs, each proved on the spot by what reads it."""
