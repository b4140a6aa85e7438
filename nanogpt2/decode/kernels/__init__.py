"""A device's fast decoders and draws, checked; choose.py alone says which serve a model."""
