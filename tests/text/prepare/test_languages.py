"""Other people's languages: byte pair encoding learns from each script and gives its text back."""

# ruff: noqa: RUF001 (other scripts are the matter here)

import unicodedata
from pathlib import Path

import pytest

from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.dataset import load_prepared_tokenizer, load_tokens

# Each with what its writing has of its own: signs without spaces, one of them beyond 16 bits; vowel
# marks; a joiner, and a letter that NFC takes apart; accents that it puts together; a capital ẞ.
LANGUAGES = {
    "Chinese": "今天早上下雨，我在窗前读书。雨停了以后，孩子们跑到街上玩。\n"
    "她问：“明天还下雨吗？”没有人回答。姓𠮷的邻居送来了三个苹果。\n",
    "Arabic": "فَتَحَ الوَلَدُ النَّافِذَةَ وَنَظَرَ إِلَى البَحْرِ. كان الصباح هادئًا، والسماء صافية.\n"
    "سألت الأم: «متى تعود السفينة؟» فقال: بعد ٣ أيام، إن شاء الريح.\n",
    "Hindi": "सुबह बारिश हुई, और बच्चे खिड़की के पास बैठकर नदी को देखते रहे।\n"
    "माँ ने कहा: ‘क्\u200dया नाव आज लौटेगी?’ \u0958लम मेज़ पर है, और घड़ी में १० बजे हैं।\n",
    "Greek": "Το πρωί έβρεξε και τα παιδιά κοίταζαν τη θάλασσα από το παράθυρο.\n"
    "«Πότε γυρίζει το πλοι\u0301ο;» ρώτησε η μητέρα· ἐν ἀρχῇ τῆς ἡμέρας, εἶπε ὁ γέρων.\n",
    "German": "Am Morgen regnete es, und die Kinder saßen am Fenster und sahen über den Fluß.\n"
    "„Wann kommt die Fähre zurück?“, fragte die Müllerin; Übermorgen, GROẞE Verspätung.\n",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_in_any_script_is_learnt_from_and_comes_back(language: str, tmp_path: Path) -> None:
    text = LANGUAGES[language] * 9
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    out = tmp_path / "out"
    description = prepare(
        tmp_path / "text.txt", out, tokenizer="bpe", vocab_size=320, fractions=(0.1, 0.1)
    )
    tokenizer = load_prepared_tokenizer(out)
    splits = [load_tokens(out, name) for name in ("train", "val", "test")]
    composed = unicodedata.normalize("NFC", text)
    assert "".join(tokenizer.decode(tokens) for tokens in splits) == composed
    assert description["tokens"] < len(composed.encode()) * 0.75
    for others in LANGUAGES.values():  # of which it has seen nothing
        assert tokenizer.decode(tokenizer.encode(others)) == others


def test_bpe_without_room_for_a_merge_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(LANGUAGES["Hindi"] * 9, encoding="utf-8")
    told = {
        size: prepare(
            tmp_path / "text.txt",
            tmp_path / "out",
            tokenizer="bpe",
            vocab_size=size,
            fractions=(0.1, 0.1),
        )["warnings"]
        for size in (256, 320)
    }
    assert any("vocab_size: 256 is just the bytes" in warning for warning in told[256])
    assert not any("vocab_size" in warning for warning in told[320])
