"""What is shown of a run. It changes no output and ends no run."""
