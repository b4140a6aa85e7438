"""In: settings. Out: which is best, and whether they differ or their runs were lucky."""
