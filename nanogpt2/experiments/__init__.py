"""In: settings. Out: runs of several seeds through DVC, and whether they differ. The only room
that runs DVC."""
