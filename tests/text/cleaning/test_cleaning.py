"""Cleaners: what each takes out, what it leaves, and that where blocks end changes nothing."""

# ruff: noqa: RUF001 (characters that look alike are the matter here)

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.text.cleaning.cleaner import Cleaner, Found, Tally
from nanogpt2.text.cleaning.controls import find_controls
from nanogpt2.text.cleaning.licences import Licences
from nanogpt2.text.cleaning.lines import line_keys
from nanogpt2.text.cleaning.mojibake import find_mojibake


def clean(cleaner: Cleaner, *blocks: str) -> str:
    return "".join([*map(cleaner.push, blocks), cleaner.finish()])


def cut(text: str, seed: int) -> list[str]:
    """Return `text` in blocks of some whole lines."""
    draw, lines = random.Random(seed), text.splitlines(keepends=True)
    bounds = [0, *sorted(draw.choices(range(len(lines) + 1), k=5)), len(lines)]
    return ["".join(lines[a:b]) for a, b in pairwise(bounds)]


# --- Control characters ---


@pytest.mark.parametrize(
    ("text", "cleaned", "kind"),
    [
        ("a\x00b\x07", "ab", "control character"),
        ("a\x7fb\x9d", "ab", "control character"),
        ("one\x0ctwo", "one\ntwo", "control character"),
        ("one\n\x0ctwo", "one\ntwo", "control character"),
        ("\x1b[1;31mred\x1b[0m", "red", "terminal sequence"),
        ("\x1b]0;title\x07shell", "shell", "terminal sequence"),
        ("N\x08NA\x08A_\x08M_\x08E", "NAME", "overstruck letter"),
        ("hy\xadphen", "hyphen", "soft hyphen"),
        ("wo\u200brd\u2060s", "words", "zero-width character"),
        ("Auf\u200clage", "Auflage", "zero-width character"),
        ("\u202eevil\u202c \u200fmark", "evil mark", "direction mark"),
        ("in\ufeffside", "inside", "byte order mark"),
        ("hid\U000e0041\U000e0042den", "hidden", "invisible character"),
        ("e\u200b\u0301", "é", "zero-width character"),  # what then stands together is joined
    ],
    ids=ascii,
)
def test_what_is_no_writing_goes_and_is_counted_by_kind(text: str, cleaned: str, kind: str) -> None:
    cleaner = Cleaner(find_controls)
    assert clean(cleaner, text) == cleaned
    assert set(cleaner.tally.places) == {kind}
    assert cleaner.tally.documents == 1


@pytest.mark.parametrize(
    "text",
    [
        "tab\tand\nnewline",
        "می\u200cخواهم",  # Persian
        "क\u094d\u200dष",  # Hindi
        "👩\u200d👩\u200d👧 ❤️\u200d🔥",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # the flag of Scotland
        "ภาษา\u200bไทย",
        "שלום!\u200f abc",
        "葛\U000e0100",  # a form of a Chinese character
    ],
    ids=ascii,
)
def test_what_writing_needs_stays(text: str) -> None:
    assert clean(Cleaner(find_controls), text) == text


def test_each_change_is_said_with_its_place_in_the_document() -> None:
    said: list[Found] = []
    cleaner = Cleaner(find_controls, said.append)
    for _ in range(2):
        clean(cleaner, "one\x00\n", "tw\x07o\n")
    assert [(found.start, found.old) for found in said] == [(3, "\x00"), (7, "\x07")] * 2
    assert cleaner.tally == Tally(2, 4, Counter({"control character": 4}))
    assert Tally.from_dict(cleaner.tally.to_dict()) == cleaner.tally
    assert (cleaner.tally + cleaner.tally).documents == 4


@given(st.text())
def test_no_control_is_left_of_any_text(text: str) -> None:
    cleaned = clean(Cleaner(find_controls), text)
    assert not any((c < " " and c not in "\t\n") or "\x7f" <= c < "\xa0" for c in cleaned)


# --- Mojibake ---


def misread(text: str, codec: str = "cp1252") -> str:
    """Return what a program shows that takes the UTF-8 bytes of `text` for `codec`."""
    return "".join(bytes([b]).decode(codec, "ignore") or chr(b) for b in text.encode())


TEXTS = (
    *("café", "Größe – “quoted”, it’s", "el niño, ¿qué?", "naïve façade", "£5", "© 2020", "Łódź"),
    *("Привет, мир", "Ελλάδα", "日本語です", "שלום", "مرحبا", "😀 ok", "ÉCOLE À LA MODE", "œuvre"),
)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("codec", ["cp1252", "latin-1"])
def test_utf8_that_was_misread_once_or_again_is_taken_back(text: str, codec: str) -> None:
    for _ in range(2):
        wrong = misread(text, codec)
        assert clean(Cleaner(find_mojibake), f"before\n{wrong}\n") == f"before\n{text}\n"
    twice = misread(misread(text, codec), codec)
    assert clean(Cleaner(find_mojibake), twice) == text


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS,
        *("CAFÉ»", "«É»", "café\u00a0» dit-il", "„…Ä“", "Spaß“", "Spaß…", "Å²", "IRMÃ»", "3ײ"),
        *("voilà…»", "À “la”", "Größe²", "Straß®", "d’être à « l’heure »", "MAÇÃ”", "é\xad", "Ñ”"),
        *("ášši", "Ášši", "l’œuvre", "até ž"),
    ],
)
def test_writing_that_looks_alike_stays(text: str) -> None:
    assert clean(Cleaner(find_mojibake), text) == text


def test_quotes_of_windows_are_mended_where_they_became_controls() -> None:
    assert clean(Cleaner(find_mojibake), "\x93quoted\x94, it\x92s") == "“quoted”, it’s"


def test_what_could_be_writing_is_mended_beside_what_could_not() -> None:
    assert clean(Cleaner(find_mojibake), "SpaÃŸ â€“ Ä“\n") == "Spaß – ē\n"


# --- Licences ---

TEXT = "It was a dark and stormy night.\n" * 60
HEADER = (
    "The Project Gutenberg eBook of Night\n\nThis ebook is for the use of anyone anywhere.\n\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK A VERY LONG\nNIGHT ***\n\n\n"
)
FOOTER = (
    "*** END OF THE PROJECT GUTENBERG EBOOK A VERY LONG NIGHT ***\n\n" + "full licence\n" * 1500
)
SMALL_PRINT = (
    "**The Project Gutenberg Etext of Night**\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN"
    " ETEXTS**START***\nWhy is this here?\n"
    "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n"
)
OLD_FOOTER = "End of the Project Gutenberg Etext of Night\n"
COMMENT = "/*\n * Permission is hereby\n * granted, free of charge, to any person\n */\n"
HASHES = "# Copyright (c) 2020\n# Licensed under the Apache\n# License, Version 2.0\n"
WIKI = "Text is available under the Creative Commons Attribution-ShareAlike License.\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (HEADER + TEXT + FOOTER, TEXT),
        (SMALL_PRINT + TEXT + OLD_FOOTER, TEXT),
        (HEADER + TEXT + FOOTER + HEADER + TEXT + FOOTER, TEXT * 2),  # two files in one
        (TEXT + FOOTER, TEXT),
        (COMMENT + TEXT, TEXT),
        ("#!/bin/sh\n" + HASHES + TEXT, "#!/bin/sh\n" + TEXT),
        (
            "#pragma once\n" + HASHES.replace("#", "//") + "#include <x>\n",
            "#pragma once\n#include <x>\n",
        ),
        ("// SPDX-License-Identifier: MIT\n" + TEXT, TEXT),
        (TEXT + WIKI + TEXT, TEXT * 2),
    ],
    ids=["new", "old", "joined", "footer", "c", "shell", "slashes", "spdx", "wiki"],
)
def test_licence_blocks_go_wherever_blocks_end(text: str, left: str) -> None:
    expected = Licences()
    assert clean(expected, text) == left
    assert expected.tally.characters == len(text) - len(left)
    for seed in range(8):
        cleaner = Licences()
        assert clean(cleaner, *cut(text, seed)) == left
        assert clean(cleaner, *cut(text, seed + 1)) == left  # and the next document
        assert cleaner.tally == expected.tally + expected.tally


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "# Copyright is a word\n" + TEXT,
        TEXT + "*** END OF THE PROJECT GUTENBERG EBOOK is a line\n" + TEXT * 30,  # text goes on
        "x = 1\n" * 9000 + COMMENT,  # far from the beginning
        "He said: Text is available under the Creative Commons Attribution\n",
    ],
    ids=["plain", "word", "quoted", "far", "said"],
)
def test_what_is_not_surely_about_a_licence_stays(text: str) -> None:
    for seed in range(4):
        assert clean(Licences(), *cut(text, seed)) == text


# --- Lines ---

lines = st.lists(st.text(st.characters(exclude_characters="\n")), max_size=8)


@given(lines, lines)
def test_lines_have_equal_keys_if_they_are_equal(some: list[str], others: list[str]) -> None:
    texts = ["\n".join(some), "\n".join(others)]
    by_key: dict[int, str] = {}
    for text in texts:
        keys = line_keys(text, 1)
        found = [
            text[start : start + length]
            for start, length in zip(keys.starts.tolist(), keys.lengths.tolist(), strict=True)
        ]
        assert found == [line for line in text.split("\n") if line]
        for key, line in zip(keys.hashes.tolist(), found, strict=True):
            assert by_key.setdefault(key, line) == line
    assert len(set(by_key.values())) == len(by_key)


def test_a_line_has_the_same_key_in_any_text_and_short_lines_have_none() -> None:
    line = "a line of forty characters or more than that"
    alone = line_keys(line)
    within = line_keys(f"é\nshort\n{line}\n日本語{'x' * 70000}\n{line}")
    assert within.hashes[[0, 2]].tolist() == alone.hashes.tolist() * 2
    assert within.lengths.tolist() == [len(line), 70003, len(line)]
    assert not line_keys("").hashes.size
