"""In: settings. Out: which is best, and whether they differ or their runs were lucky. In rooms of
its own runs are planned, tried, compared and shown, and what is recorded is checked."""
