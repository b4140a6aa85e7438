"""Names of an export's files that are not the model's, without torch."""

RECORD = "export.json"  # what was exported and compared, and the SHA-256 of each file
BESIDE = ("README.md", "model.sig")  # written after it, and so not in it: the card, a signature
