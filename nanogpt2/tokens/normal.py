"""The one form of every text that enters: corpus, datasets, prompts, stop strings, scores."""

import unicodedata

BYTE_ORDER_MARK = "\ufeff"
PIECE = 4096  # characters of a text that are composed together


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
    """Return `text` in form NFC, composed by pieces, since nothing composes with a newline.

    A piece in which no character can be a part of another costs next to nothing.
    """
    pieces, at = [], 0
    while at < len(text):
        end = text.find("\n", at + PIECE) + 1 or len(text)
        pieces.append(unicodedata.normalize("NFC", text[at:end]))
        at = end
    return "".join(pieces)
