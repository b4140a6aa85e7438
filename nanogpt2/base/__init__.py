"""Files written whole, signals, and errors that a user can mend: what every room stands on."""
