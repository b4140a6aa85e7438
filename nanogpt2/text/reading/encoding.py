"""Which encoding a text is in that is not UTF-8.

Most bytes are a text in most encodings, so each is tried, and the likeliest wins: the one in which
the letters are those of one language's alphabet, capitals begin words, and Chinese, Japanese and
Korean keep to the rows of common characters of their code.
"""

# ruff: noqa: RUF001 (letters and quotes that look alike are the matter here)

import codecs
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache

SAMPLE_BYTES = 5_000  # ten times what tells the languages of the tests apart, of lines not ASCII
REMEMBERED = 2**17  # characters between their neighbours, which a language has again and again
PLAUSIBLE = 0.75  # share of the characters beyond ASCII that look like writing
MARKS = (  # UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
WIDE = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")

ISO_2022 = {  # shifts to double bytes, which are ASCII too
    b"\x1b$B": "ISO-2022-JP",
    b"\x1b$@": "ISO-2022-JP",
    b"\x1b$(": "ISO-2022-JP",
    b"\x1b$)C": "ISO-2022-KR",
}

# Letters beyond ASCII of languages written in Latin script, those alike together.
LATIN = (
    "àâæçéèêëîïôœùûüÿ",  # French
    "äöüßåéëïóèêç",  # German, Swedish, Finnish, Dutch
    "áéíñóúüçàèòïôâãêõªº",  # Spanish, Portuguese, Catalan
    "àèéìîòóù",  # Italian
    "æøåéèêóòâ",  # Danish, Norwegian
    "áðéíóúýþæö",  # Icelandic
    "ąćęłńóśźż",  # Polish
    "áčďéěíňóřšťúůýžäĺľôŕ",  # Czech, Slovak
    "áéíóöőúüű",  # Hungarian
    "ăâîșțşţ",  # Romanian
    "čćđšž",  # Croatian, Slovenian
    "çğıi̇öşüâîû",  # Turkish
    "āčēģīķļņšūžąęėįųõäöü",  # Latvian, Lithuanian, Estonian
)
PUNCTUATION = set("«»‹›“”„‚‘’–—…•·¿¡€£§°©®™№ \u00ad\u3000")
OPENING = set("«‹“„‚¿¡")

# By the name that iconv takes: Python's codec, and the scripts that it is for.
ALPHABETS = {
    "CP1252": ("cp1252", "LATIN"),
    "CP1250": ("cp1250", "LATIN"),
    "CP1255": ("cp1255", "HEBREW"),
    "KOI8-R": ("koi8_r", "CYRILLIC"),
    "CP1251": ("cp1251", "CYRILLIC"),
    "CP862": ("cp862", "HEBREW"),  # before CP866, in which it is all capitals
    "CP866": ("cp866", "CYRILLIC"),
    "ISO-8859-5": ("iso8859_5", "CYRILLIC"),
    "CP1253": ("cp1253", "GREEK"),
    "ISO-8859-7": ("iso8859_7", "GREEK"),
    "CP1254": ("cp1254", "LATIN"),
    "CP1256": ("cp1256", "ARABIC"),
    "CP1257": ("cp1257", "LATIN"),
    "CP874": ("cp874", "THAI"),
    "ISO-8859-15": ("iso8859_15", "LATIN"),
    "ISO-8859-2": ("iso8859_2", "LATIN"),
    "MACINTOSH": ("mac_roman", "LATIN"),
    "CP850": ("cp850", "LATIN"),
    "CP852": ("cp852", "LATIN"),
    "CP737": ("cp737", "GREEK"),
}


@dataclass(frozen=True)
class Rows:
    """A code of East Asia: first bytes of its common characters, and what its text is made of."""

    codec: str
    common: range
    scripts: frozenset[str]
    least: float  # share (0 .. 1) of the characters that must be in `scripts`


KANA, HANGUL, CJK = ("HIRAGANA", "KATAKANA"), ("HANGUL",), ("CJK",)
ROWS = {
    "CP932": Rows("cp932", range(0x88, 0x98), frozenset(KANA), 0.2),
    "EUC-JP": Rows("euc_jp", range(0xB0, 0xD0), frozenset(KANA), 0.2),
    "CP949": Rows("cp949", range(0xB0, 0xC9), frozenset(HANGUL), 0.9),
    "GB18030": Rows("gb18030", range(0xB0, 0xD8), frozenset(CJK), 0.5),
    "BIG5": Rows("cp950", range(0xA4, 0xC7), frozenset(CJK), 0.5),
}


def find_codec(content: bytes) -> str | None:
    """Return Python's name of the encoding in which to read a text that begins with `content`.

    The end of `content` may be cut. `ascii` where it is plain ASCII so far; None where no encoding
    tried here gives writing. What is UTF-8 but for a few bytes is `utf-8`.
    """
    if is_ascii(content):
        return "ascii"
    name = name_shifts(content) if content.isascii() else None
    if not name and (is_in(content, "utf-8") or is_nearly_utf8(content)) and b"\0" not in content:
        return "utf-8"
    name = name or name_encoding(content)
    return codecs.lookup(codec_of(name)).name if name else None


def is_ascii(content: bytes) -> bool:
    """Return whether `content` is ASCII that stands for itself."""
    return content.isascii() and b"\0" not in content and not name_shifts(content)


def name_shifts(content: bytes) -> str | None:
    """Return the encoding of ISO 2022 whose shifts `content` has, if any."""
    if b"\x1b" not in content:  # looked for at once
        return None
    return next((name for shift, name in ISO_2022.items() if shift in content), None)


def is_nearly_utf8(content: bytes) -> bool:
    """Return whether characters of several bytes are common in `content`, and errors are rare."""
    text = content.decode("utf-8", "replace")
    beyond, wrong = len(text) - len(text.encode("ascii", "ignore")), text.count("\ufffd")
    return 0 < 5 * wrong <= beyond


def name_encoding(content: bytes) -> str | None:
    """Return the name, as iconv takes it, of the encoding that `content` is likeliest in, or None.

    `content` is no UTF-8 text without NUL. None too where no encoding tried here gives writing.
    """
    for mark, name in MARKS:
        if content.startswith(mark):
            return name if is_in(content, name) else None
    if b"\0" in content:
        return _name_wide(content)
    lines = [line for line in content.splitlines() if not line.isascii()]
    sample = b"\n".join(lines)[:SAMPLE_BYTES]
    scores = {name: _score_alphabet(sample, *found) for name, found in ALPHABETS.items()}
    scores |= {name: _score_rows(sample, name) for name in ROWS}
    best = sorted(scores, key=lambda name: -scores[name])  # of equals the first
    return next((n for n in best if scores[n] >= PLAUSIBLE and is_in(content, n)), None)


def codec_of(name: str) -> str:
    """Return Python's name of an encoding."""
    return ALPHABETS[name][0] if name in ALPHABETS else ROWS[name].codec if name in ROWS else name


def is_in(content: bytes, name: str) -> bool:
    """Return whether `content`, whose end may be cut, is text in the encoding `name`."""
    return not content or bool(_start(content, codec_of(name)))


def _name_wide(content: bytes) -> str | None:
    """Return which of UTF-16 and UTF-32 without its mark `content` is in; the most ASCII wins."""
    start = content[:SAMPLE_BYTES]
    controls = sum(byte < 32 and byte not in b"\n\r" for byte in start)
    if is_in(start, "UTF-8") and controls < 0.2 * len(start):
        return None  # a text of bytes, with a NUL in it
    texts = {name: text for name in WIDE if _is_writing(text := _start(start, name))}
    best = sorted(texts, key=lambda name: -sum(map(str.isascii, texts[name])))
    return next((name for name in best if is_in(content, name)), None)


def _is_writing(text: str) -> bool:
    """Return whether nearly all of `text` is letters, digits, punctuation and white space."""
    good = sum(c in "\t\n\r\ufeff" or unicodedata.category(c)[0] in "LMNPZ" for c in text)
    return good > 0.9 * len(text)


def _start(content: bytes, codec: str) -> str:
    """Return the text of `content`, whose end may be cut; empty where it is none."""
    try:
        return codecs.getincrementaldecoder(codec)().decode(content)
    except UnicodeDecodeError:
        return ""


def _count_beyond(text: str) -> Counter[tuple[str, str, str]]:
    """Return how often each character beyond ASCII stands between which neighbours."""
    near = Counter(zip(f"\n{text}", text, f"{text[1:]}\n", strict=False))
    return Counter({three: n for three, n in near.items() if not three[1].isascii()})


def _score_alphabet(sample: bytes, codec: str, script: str) -> float:
    """Return the share (0 .. 1) of the characters beyond ASCII that fit a language in `script`."""
    beyond = _count_beyond(_start(sample, codec))
    placed = Counter[str]()
    for (before, character, after), n in beyond.items():
        if _is_well_placed(before, character, after, script):
            placed[character] += n
    letters = Counter[str]()
    for character, n in placed.items():
        if _script(character) == script:
            letters[character.lower()] += n
    if script != "LATIN" and letters.total() < PLAUSIBLE * placed.total():
        return 0.0  # in another script letters are the most of it, and in Latin quotes may be
    strange = 0
    if script == "LATIN":
        strange = min(
            sum(n for letter, n in letters.items() if letter not in known) for known in LATIN
        )
    return (placed.total() - strange) / max(1, beyond.total())


@lru_cache(maxsize=REMEMBERED)
def _is_well_placed(before: str, character: str, after: str, script: str) -> bool:
    """Return whether a character beyond ASCII may stand where it does."""
    if not (character.isalpha() or unicodedata.combining(character)):
        within = before.isalnum() and (after.isalnum() or character in OPENING)
        return character in PUNCTUATION and (not within or character in "’–—·\u00ad")
    if any(near.isalpha() and _script(near) != script for near in (before, character, after)):
        return False
    return not (character.isupper() and before.islower())


@cache
def _script(character: str) -> str:
    """Return the first word of a character's name in Unicode, such as LATIN."""
    return unicodedata.name(character, "").replace("-", " ").split(" ")[0]


def _score_rows(sample: bytes, name: str) -> float:
    """Return the share (0 .. 1) of the characters beyond ASCII that are common in their code."""
    rows = ROWS[name]
    beyond = _count_beyond(_start(sample, rows.codec))
    scripts = Counter[str]()
    for (_, character, _), n in beyond.items():
        if character.isalpha():
            scripts[_script(character)] += n
    if sum(scripts[script] for script in rows.scripts) < rows.least * max(1, scripts.total()):
        return 0.0
    common = sum(n for three, n in beyond.items() if _is_common(*three, name))
    return common / max(1, beyond.total())


@lru_cache(maxsize=REMEMBERED)
def _is_common(before: str, character: str, after: str, name: str) -> bool:
    if any(near.isascii() and near.isalpha() for near in (before, after)):
        return False  # a letter with an accent, misread together with its neighbour
    rows = ROWS[name]
    if _script(character) in rows.scripts - set(CJK):
        return not 0xFF61 <= ord(character) <= 0xFF9F  # half the width: one byte, often misread
    return not character.isalpha() or character.encode(rows.codec)[0] in rows.common
