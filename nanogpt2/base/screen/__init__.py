"""What stages and commands show on the screen, in one design. It changes no output."""
