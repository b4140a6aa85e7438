"""In: models and tokenizers of other tools. Out: ours, computing the same, to start from; and the
way back. With export and proof, the only room that imports other tools' libraries."""
