"""The seam's other side for training: a device's fast operators, found by choose.py alone."""
