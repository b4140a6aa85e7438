"""Files written whole, signals, git, and errors that a user can mend."""
