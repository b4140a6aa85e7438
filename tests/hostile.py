"""Texts that tell tokenizers apart: scripts, marks, white space, runs, contractions, control."""

import random

from hypothesis import strategies as st

ALPHABET = "the é\n\r\t '\u2019sSdmtlLvreÉ1209²½\u00a0\u3000\u1680\u2028\x1c\x85\x0b\0_-.,!"
ALPHABET += "\u200d🙂🧑\U0010ffff日本語ﷺ\u0301Ⅷ\ufeff\u088f\u0915\u093fѓ"
HARD = st.text() | st.text(st.sampled_from(ALPHABET))
LISTED = [
    "",
    "Hello, I'm a language model,",
    "it's DON'T we'll they'Re you\u2019ve 'tis 'S",
    "\n\n  two  spaces\n \t\r\n x\u00a0\u3000 end ",
    "naïve é e\u0301 日本 🙂\u200d🧑\u200d🏫 \0\x1c\x85 ² ½ Ⅷ ﷺ",
    "<|endoftext|> a<|endoftext|>",
    "a" * 3000,
    " " * 20_001 + "x" + "\n" * 10_000 + " y" + "\t" * 10_000,
    "\u088f\u0c5c\ua7ce\U00010940 1\U00011de1a \U000323b0",  # letters and numbers of Unicode 17
    "हिन्दी में العربية Ελληνικά Größe 中文\uff0c没有空格 한국어 ไทย",
]


def _make_texts(count: int) -> list[str]:
    chance = random.Random(1)
    return [
        "".join(chance.choices(ALPHABET, k=chance.choice([1, 2, 3, 7, 30, 31, 200])))
        for _ in range(count)
    ]


TEXTS = LISTED + _make_texts(200 - len(LISTED))
