"""In: operators and a configuration. Out: those that compute what torch's do, others refused."""
