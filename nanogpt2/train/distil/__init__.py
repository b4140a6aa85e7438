"""In: the files of teachers, models that were trained before. Out: a loss that follows their
probabilities, and in whose gradient; what keeps a run from its teachers, in one line."""
