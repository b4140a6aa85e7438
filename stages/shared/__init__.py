"""What the stages share: a click command, and how it ends."""
