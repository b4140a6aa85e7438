"""In: a model or what it starts from, a configuration, datasets, teachers. Out: trained weights and
their record; states of runs that were cut off."""
