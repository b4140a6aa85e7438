"""The seam's other side for training: a device's fast operators, checked where they will run. They
are found by choose.py alone."""
