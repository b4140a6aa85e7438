"""In and out: a trained model as other tools read it, and theirs as ours; cards, and proof of what
belongs together. The only room that imports other tools' libraries."""
