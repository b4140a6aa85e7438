"""In: text, or token files. Out: tokens and their tokenizer; windows and batches, by step. Pairs of
bytes have a room of their own."""
