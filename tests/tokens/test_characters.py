"""Characters are tokens in C as in numpy, which serves where no library is there."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hostile import HARD, TEXTS
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.base.system.errors import DataError
from nanogpt2.device import compiler
from nanogpt2.tokens import characters
from nanogpt2.tokens.tokenizer import CharTokenizer

SURROGATES = st.text(st.characters(codec=None, categories=["Cs", "L", "So"]))


@pytest.fixture(autouse=True)
def _forget_the_library() -> Iterator[None]:
    yield
    characters.load.cache_clear()


def encode(text: str, known: str) -> list[int] | str:
    """Return the tokens of `text`, or what is wrong with it."""
    try:
        tokens = CharTokenizer.train(known).encode(text)
    except DataError as error:
        return str(error)
    assert tokens.dtype == np.uint16
    numbers: list[int] = tokens.tolist()
    return numbers


@given(text=HARD | SURROGATES, more=HARD)
def test_tokens_and_errors_are_the_same(text: str, more: str) -> None:
    ascii_alone = text.encode("ascii", "ignore").decode()
    pairs = [(text, text + more), (text + more, text), (ascii_alone, ascii_alone)]
    characters.load.cache_clear()  # so that short texts are left to numpy
    expected = [encode(*pair) for pair in pairs]
    if characters.load() is None:
        pytest.skip("no C compiler")
    assert [encode(*pair) for pair in pairs] == expected


def test_hostile_texts_come_back() -> None:
    characters.load()
    tokenizer = CharTokenizer.train(TEXTS)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("size", [2**16, 2**16 + 1])
def test_more_characters_than_two_bytes_tell_apart_have_four(size: int) -> None:
    characters.load()
    points = [point for point in range(0x20000) if not 0xD800 <= point <= 0xDFFF]
    text = "".join(map(chr, points[:size]))
    assert CharTokenizer.train(text).encode(text[::-1]).tolist() == [*range(size)][::-1]


def test_a_long_text_is_encoded_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    monkeypatch.setattr(characters, "WORTH", 3)
    compiler.load_library.cache_clear()
    assert CharTokenizer("abc").encode("cab").tolist() == [2, 0, 1]
    assert characters.load.cache_info().currsize
    assert characters.load() is None
    compiler.load_library.cache_clear()


def test_no_memory_is_misused(tmp_path: Path) -> None:
    """In a program of its own, whose arrays lie between guards."""
    program = tmp_path / "program.c"
    program.write_text(f'#include "{characters.SOURCE}"\n' + PROGRAM, encoding="ascii")
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-std=gnu11"]
    try:
        built = subprocess.run(["gcc", *flags, program, "-o", tmp_path / "program"], check=False)
    except FileNotFoundError:
        pytest.skip("needs gcc")
    if built.returncode:
        pytest.skip("needs gcc's sanitizers")
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>

int main(void) {
    for (int64_t size = 0; size < 70; size++) {
        for (int64_t last = 0; last < 300; last += 43) {
            uint8_t *bytes = malloc(size);
            uint32_t *points = malloc(size * sizeof *points);
            uint16_t *tokens = malloc(size * sizeof *tokens);
            int32_t *table = malloc((last + 1) * sizeof *table);
            for (int64_t at = 0; at < last; at++) table[at] = at % 7 ? at : -1;
            table[last] = -1;
            for (int64_t at = 0; at < size; at++) {
                bytes[at] = 255 - 3 * at;
                points[at] = at % 2 ? 0x10FFFF - at : at;
            }
            encode_bytes(bytes, size, table, last, tokens);
            encode_points(points, size, table, last, tokens);
            free(bytes), free(points), free(tokens), free(table);
        }
    }
    puts("done");
}
"""
