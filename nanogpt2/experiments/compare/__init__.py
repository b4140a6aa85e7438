"""In: what git and DVC keep of a project. Out: its runs, their means and noise, the way back."""
