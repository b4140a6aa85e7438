"""What every room stands on: files, signals, git and errors; and what is shown on the screen."""
