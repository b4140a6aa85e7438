"""Tokenizer files: transformers gives our tokens, what we wrote comes back, others are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpt2_vocabulary import gpt2_files, gpt2_tokenizer

from nanogpt2.base.system.errors import CheckpointError, DataError
from nanogpt2.exchange.incoming.tokenizer_files import write_tokenizer
from nanogpt2.tokens.bpe.bpe import BYTE_CHARACTERS, BytePairTokenizer
from nanogpt2.tokens.bpe.merges import train_from_texts
from nanogpt2.tokens.description import SpecialTokens
from nanogpt2.tokens.files import read_tokenizer
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

TEXTS = [
    "",
    " ",
    "\n\n  two  spaces \n",
    "it's DON'T , . ! 's we'll",
    'naïve é e\u0301 日本 🙂\u200d🏫\r\n\t\0 \x1c\x85 "q"',
    "\u2028\xa0\u3000 ÿ<|endoftext|><|pad|><unk>",
    "a" * 300 + " " * 300 + "b",
]
CHARACTERS = "".join(sorted(set("".join(TEXTS))))
MERGES = ["t h", "Ġ th", "th e", "Ġth e", "Ã ©", "Ċ Ċ", "Ġ Ġ", "' s"]
MADE = [merge.replace(" ", "") for merge in MERGES]
TOKENIZERS: dict[str, tuple[Tokenizer, int | None, SpecialTokens]] = {
    "char": (CharTokenizer(CHARACTERS), None, SpecialTokens(None, None, None, len(CHARACTERS))),
    "char with a row left over": (
        CharTokenizer(CHARACTERS),
        256,
        SpecialTokens(len(CHARACTERS), None, None, len(CHARACTERS) + 1),
    ),
    "byte": (ByteTokenizer(), 300, SpecialTokens(255, None, None, 256)),
    "bpe": (
        BytePairTokenizer([*MADE, "<|endoftext|>", *BYTE_CHARACTERS], MERGES, ["<|endoftext|>"]),
        300,
        SpecialTokens(8, 8, 8, 265),
    ),
    "trained bpe": (
        train_from_texts(TEXTS, 300, ["<|x|>", "<|endoftext|>"]),
        None,
        SpecialTokens(299, 299, 299, 300),
    ),
    "bpe without a special token": (
        BytePairTokenizer([*BYTE_CHARACTERS, *MADE], MERGES),
        None,
        SpecialTokens(None, None, None, 264),
    ),
    "bpe with a row left over": (
        BytePairTokenizer([*BYTE_CHARACTERS, *MADE], MERGES),
        265,
        SpecialTokens(264, None, None, 265),
    ),
}


@pytest.fixture(params=list(TOKENIZERS))
def written(request: pytest.FixtureRequest) -> tuple[Tokenizer, int | None, SpecialTokens]:
    """Write a tokenizer into the folder `out`."""
    tokenizer, vocab_size, expected = TOKENIZERS[request.param]
    assert write_tokenizer(tokenizer, "out", block_size=64, vocab_size=vocab_size) == expected
    return tokenizer, vocab_size, expected


def open_with_transformers(folder: str | Path) -> Any:
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


def bytes_of(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_transformers_gives_our_tokens_and_their_text(
    written: tuple[Tokenizer, int | None, SpecialTokens],
) -> None:
    tokenizer, _, special = written
    theirs = open_with_transformers("out")
    assert theirs.model_max_length == 64
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (
        special.pad, special.bos, special.eos
    )  # fmt: skip
    for text in TEXTS:
        encoded = theirs(text)
        assert set(encoded) == {"input_ids", "attention_mask"}
        assert encoded["input_ids"] == tokenizer.encode(text).tolist(), text
        assert theirs.decode(encoded["input_ids"]) == text
    if special.pad is not None:
        padded = theirs(["q,l", "o"], padding=True)
        assert padded["input_ids"][1] == [special.pad] * 2 + tokenizer.encode("o").tolist()
        assert padded["attention_mask"][1] == [0, 0, 1]


def test_a_character_that_char_does_not_know_is_an_error_there_too() -> None:
    write_tokenizer(CharTokenizer("ab"), "out", block_size=8, vocab_size=8)
    theirs = open_with_transformers("out")
    with pytest.raises(
        Exception, match="UNK"
    ):  # of this very type: the library has none of its own
        theirs("abc")


def test_what_was_written_comes_back_and_is_written_alike(
    written: tuple[Tokenizer, int | None, SpecialTokens],
) -> None:
    tokenizer, vocab_size, _ = written
    back = read_tokenizer("out")
    assert back is not None
    assert back.to_dict() == tokenizer.to_dict()
    write_tokenizer(back, "again", block_size=64, vocab_size=vocab_size)
    assert bytes_of("again") == bytes_of("out")


def test_what_transformers_saved_anew_comes_back(
    written: tuple[Tokenizer, int | None, SpecialTokens],
) -> None:
    theirs = open_with_transformers("out")
    if theirs.pad_token_id is not None:
        theirs(["two", "o"], padding=True, truncation=True, max_length=8)
    theirs.save_pretrained("saved")
    back = read_tokenizer("saved")
    assert back is not None
    assert back.to_dict() == written[0].to_dict()


def test_gpt2s_own_files_are_its_tokenizer() -> None:
    Path("in").mkdir()
    for path in gpt2_files():
        shutil.copy(path, "in")
    back = read_tokenizer("in")
    assert back is not None
    assert back.to_dict() == gpt2_tokenizer().to_dict()


def test_gpt2_as_transformers_saves_it_is_its_tokenizer() -> None:
    transformers = pytest.importorskip("transformers")
    Path("in").mkdir()
    for path, name in zip(gpt2_files(), ("vocab.json", "merges.txt"), strict=True):
        shutil.copy(path, Path("in", name))
    transformers.GPT2TokenizerFast.from_pretrained("in").save_pretrained("saved")
    back = read_tokenizer("saved")
    assert back is not None
    assert back.to_dict() == gpt2_tokenizer().to_dict()


def test_a_folder_without_tokenizer_files_has_none() -> None:
    Path("in").mkdir()
    assert read_tokenizer("in") is None


def test_tokens_added_beside_the_vocabulary_are_special() -> None:
    Path("in").mkdir()
    numbers = {token: number for number, token in enumerate(BYTE_CHARACTERS)}
    Path("in/vocab.json").write_text(json.dumps(numbers | {"ab": 256}), encoding="utf-8")
    Path("in/merges.txt").write_text("#version: 0.2\r\na b\r\n", encoding="utf-8")
    Path("in/added_tokens.json").write_text('{"<end>": 257}', encoding="utf-8")
    back = read_tokenizer("in")
    assert isinstance(back, BytePairTokenizer)
    assert (back.special, back.merges, back.size) == (["<end>"], ["a b"], 258)


Change = Callable[[dict[str, Any]], object]
REFUSED: dict[str, tuple[Change, str]] = {
    "lower case": (
        lambda data: data.update(normalizer={"type": "Lowercase"}),
        'normalizer: found {"type": "Lowercase"}; allowed: null',
    ),
    "SentencePiece": (
        lambda data: data["pre_tokenizer"].update(type="Metaspace"),
        'pre_tokenizer.type: found "Metaspace"; allowed: "ByteLevel"',
    ),
    "no pattern": (
        lambda data: data["pre_tokenizer"].update(use_regex=False),
        "pre_tokenizer.use_regex: found false; allowed: true",
    ),
    "a space before": (
        lambda data: data["pre_tokenizer"].update(add_prefix_space=True),
        "pre_tokenizer.add_prefix_space: found true; allowed: false",
    ),
    "nothing cut": (lambda data: data.update(pre_tokenizer=None), "pre_tokenizer.type: found null"),
    "unigrams": (lambda data: data["model"].update(type="Unigram"), 'model.type: found "Unigram"'),
    "falling back": (
        lambda data: data["model"].update(byte_fallback=True),
        "model.byte_fallback: found true; allowed: false",
    ),
    "dropout": (lambda data: data["model"].update(dropout=0.1), "model.dropout: found 0.1"),
    "a suffix": (
        lambda data: data["model"].update(end_of_word_suffix="</w>"),
        'model.end_of_word_suffix: found "</w>"; allowed: ""',
    ),
    "a template": (
        lambda data: data.update(post_processor={"type": "BertProcessing"}),
        'post_processor: found {"type": "BertProcessing"}; allowed: null',
    ),
    "another decoder": (
        lambda data: data.update(decoder={"type": "Metaspace"}),
        'decoder.type: found "Metaspace"; allowed: "ByteLevel"',
    ),
    "a token that strips": (
        lambda data: data["added_tokens"][0].update(lstrip=True),
        'added_tokens: "<|endoftext|>": lstrip: found true; allowed: false',
    ),
    "a token found in texts": (
        lambda data: data["added_tokens"][0].update(special=False),
        'added_tokens: "<|endoftext|>": special: found false; allowed: true',
    ),
    "a token that is none": (
        lambda data: data["added_tokens"].append(7),
        "added_tokens: null: special: found null; allowed: true",
    ),
    "no vocabulary": (lambda data: data["model"].update(vocab=None), "model.vocab: found null"),
    "a gap": (lambda data: data["model"]["vocab"].update(th=999), "vocab: found"),
    "a number twice": (lambda data: data["model"]["vocab"].update(th=1), "vocab: found"),
    "a number in words": (lambda data: data["model"]["vocab"].update(th="0"), "vocab: found"),
    "no merges": (lambda data: data["model"].pop("merges"), "model.merges: found null"),
    "a merge of nothing": (
        lambda data: data["model"]["merges"].append(["th", "zz"]),
        "model: merges has 'th zz'",
    ),
    "a merge that is a number": (lambda data: data["model"]["merges"].append(7), "lists of texts"),
    "a merge that another one prevents": (
        lambda data: (
            data["model"]["vocab"].update(hx=265, thx=266),
            data["model"]["merges"].extend([["h", "x"], ["t", "hx"]]),
        ),
        'merges: found "t hx"; allowed: pairs that earlier merges leave as they are',
    ),
    "a byte missing": (
        lambda data: data["model"]["vocab"].update(zz=data["model"]["vocab"].pop("a")),
        "vocabulary lacks 'a'",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_another_tokenizer_is_refused_with_file_key_value_and_what_is_allowed(case: str) -> None:
    change, expected = REFUSED[case]
    write_tokenizer(TOKENIZERS["bpe"][0], "in", block_size=8)
    path = Path("in/tokenizer.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(CheckpointError) as error:
        read_tokenizer("in")
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert "\n" not in message


def test_characters_that_are_not_written_by_us_are_refused() -> None:
    write_tokenizer(CharTokenizer("ab"), "in", block_size=8)
    path = Path("in/tokenizer.json")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"<unk>"', '"a"'), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r'model\.type: found "WordLevel"; allowed: "BPE"'):
        read_tokenizer("in")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer.model": "x"}, "in/tokenizer.model: no tokenizer that can be read; allowed: "),
        ({"vocab.json": "{}"}, "in/vocab.json: no tokenizer that can be read"),
        ({"tokenizer.json": "{"}, "in/tokenizer.json: damaged JSON"),
        ({"tokenizer.json": "[" * 100_000}, "in/tokenizer.json: damaged JSON: nested too deeply"),
        ({"tokenizer.json": "[]"}, r"in/tokenizer.json: the file: found \[\]; allowed: an object"),
        (
            {"tokenizer_config.json": '{"add_prefix_space": true}'},
            "in/tokenizer_config.json: add_prefix_space: found true; allowed: false",
        ),
        (
            {
                "vocab.json": "{}",
                "merges.txt": "",
                "tokenizer_config.json": '{"tokenizer_class": "CLIPTokenizer"}',
            },
            'tokenizer_class: found "CLIPTokenizer"; allowed: GPT2Tokenizer',
        ),
        ({"vocab.json": "{}", "merges.txt": ""}, "in/merges.txt: merges: vocabulary lacks"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_files_that_are_no_tokenizer_are_refused(files: dict[str, str], expected: str) -> None:
    Path("in").mkdir()
    for name, text in files.items():
        Path("in", name).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=expected):
        read_tokenizer("in")


def test_half_a_surrogate_pair_is_not_written() -> None:
    with pytest.raises(DataError, match=r"U\+D800"):
        write_tokenizer(CharTokenizer("a\ud800"), "out", block_size=8)
