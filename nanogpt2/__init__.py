"""nanoGPT2: GPT-2 style language models on your own text, reproducibly."""

__version__ = "0.1.0"
