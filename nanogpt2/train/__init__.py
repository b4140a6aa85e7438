"""In: a model, a configuration and datasets. Out: trained weights and their record; states of
runs that were cut off."""
