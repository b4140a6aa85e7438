"""The commands of `python -m nanogpt2`, one click module each."""
