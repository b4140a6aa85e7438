"""In: any text. Out: token files in `data/prepared`; or what would stop a run, in words."""
