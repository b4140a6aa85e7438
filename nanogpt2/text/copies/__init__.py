"""In: texts. Out: which pieces of them stand in another place too, word for word or nearly."""
