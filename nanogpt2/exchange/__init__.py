"""In: models and tokenizers of other tools. Out: ours, computing the same; and ours for theirs."""
