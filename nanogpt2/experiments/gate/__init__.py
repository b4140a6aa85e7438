"""In: a project and a commit to compare it with. Out: whether its record fits, and whether its
figures are worse than the commit's by more than chance makes them. It runs nothing."""
