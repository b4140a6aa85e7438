"""The pipeline's stages: each parses its options, calls the library and writes its outputs."""
