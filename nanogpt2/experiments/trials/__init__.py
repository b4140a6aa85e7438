"""In: settings of params.yaml, by the dozen. Out: what each came to, an experiment of DVC each. The
only room that runs DVC."""
