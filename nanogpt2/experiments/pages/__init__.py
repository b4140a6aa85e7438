"""In: runs that are compared. Out: a page that needs no network, also live; terminal curves."""
