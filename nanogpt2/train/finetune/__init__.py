"""In: trained weights and a configuration. Out: the model to train, in the run's tokens; which of
its weights train, and how quickly."""
