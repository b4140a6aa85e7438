"""What commands share: the runs that were cut off."""
