"""What commands share: the values that they take, and the runs that were cut off."""
