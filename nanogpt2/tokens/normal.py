"""The one form of every text that enters: corpus, datasets, prompts, stop strings, scores."""

import re
import unicodedata

BYTE_ORDER_MARK = "\ufeff"
NEWLINES = re.compile("\r\n|[\r\x85\u2028\u2029]")


def normalise(text: str) -> str:
    r"""Return `text` without byte order marks before it, newlines as `\n`, in Unicode's form NFC.

    >>> normalise("\ufeffcafe\u0301\r\n")
    'café\n'
    """
    return unicodedata.normalize("NFC", NEWLINES.sub("\n", text.lstrip(BYTE_ORDER_MARK)))
