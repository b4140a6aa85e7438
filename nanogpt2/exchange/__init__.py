"""In and out: a trained model as other tools read it, and theirs as ours. The only room that
imports other tools' libraries, but for that which signs."""
