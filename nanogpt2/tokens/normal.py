"""The one form of every text that enters: corpus, datasets, prompts, stop strings, scores."""

import unicodedata

BYTE_ORDER_MARK = "\ufeff"
SAMPLE_STEP = 16  # characters: which way is quicker is told by one in so many


def normalise(text: str) -> str:
    r"""Return `text` without byte order marks before it, newlines as `\n`, in Unicode's form NFC.

    >>> normalise("\ufeffcafe\u0301\r\n")
    'café\n'
    """
    return normalise_within(text.lstrip(BYTE_ORDER_MARK))


def normalise_within(text: str) -> str:
    r"""Return the same form of a piece of a text that does not begin it.

    The pieces give what the whole gives where each begins with an ASCII character that is not the
    `\n` of an `\r\n`.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return text
    for newline in "\x85\u2028\u2029":
        text = text.replace(newline, "\n")
    return _compose(text)


def _compose(text: str) -> str:
    """Return `text` in form NFC.

    Python is quick where no character can be a part of another. Where marks are common, as in
    Hindi, words are looked up instead: each different one is composed once, since no character
    composes with a space before it.
    """
    if not any(map(unicodedata.combining, set(text[::SAMPLE_STEP]))):
        return unicodedata.normalize("NFC", text)
    words = text.split(" ")
    composed = {word: unicodedata.normalize("NFC", word) for word in set(words)}
    return " ".join(map(composed.__getitem__, words))
