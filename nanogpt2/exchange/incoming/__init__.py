"""In: models and tokenizers of other tools. Out: ours, computing the same, to start from; and the
way back. With exchange/export and experiments/proof, the only room that imports their libraries."""
