"""What is known before a run: of its text, whatever the kind of its files, and of copies by DVC."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from nanogpt2.base.system.errors import ConfigError, DataError, NanoGPT2Error
from nanogpt2.config.config import Config, get_config
from nanogpt2.text.reading.streams import ZSTD
from nanogpt2.text.survey.preflight import (
    check_characters,
    check_copy,
    check_length,
    check_prompt,
    check_run,
    check_sampling,
    list_checks,
)


def as_lines(text: str) -> bytes:
    """Return the text as a record of JSON a line."""
    return "".join(json.dumps({"text": line}) + "\n" for line in text.split("\n")).encode()


FORMS: dict[str, Callable[[str], bytes]] = {
    "a.txt": str.encode,
    "a.txt.gz": lambda text: gzip.compress(text.encode(), 1),
    "a.txt.zst": lambda text: bytes(pytest.importorskip(ZSTD).compress(text.encode())),
    "a.jsonl": as_lines,
    "a.jsonl.gz": lambda text: gzip.compress(as_lines(text), 1),
}


@pytest.fixture(params=list(FORMS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def configure(tiny: Config, path: Path, content: bytes, **values: object) -> Config:
    """Return the configuration of a run on a text in two files."""
    folder = path.parent / "raw"
    folder.mkdir(exist_ok=True)
    (folder / path.name).write_bytes(content)
    return get_config(tiny, **{"corpus": str(folder), "tokenizer": "char", **values})


def test_a_text_that_is_too_short_is_refused_whatever_its_form(
    name: str, tiny: Config, tmp_path: Path
) -> None:
    options = {"block_size": 16, "val_fraction": 0.1, "vocab_size": 256}
    for text, tokenizer in (("a" * 170, "char"), ("é" * 90, "byte")):
        path = tmp_path / name
        config = configure(tiny, path, FORMS[name](text), tokenizer=tokenizer, **options)
        check_length(config)
    for text, tokenizer in (("a" * 169, "char"), ("é" * 89, "byte")):
        config = configure(tiny, path, FORMS[name](text), tokenizer=tokenizer, **options)
        with pytest.raises(DataError, match="the val split 16 tokens; allowed: at least 17"):
            check_length(config)


def test_of_a_large_text_only_the_start_is_read(name: str, tiny: Config, tmp_path: Path) -> None:
    """The rest may be damaged: what is refused here would be surely wrong."""
    random_letters = random.Random(0)
    text = "\n".join("".join(random_letters.choices("abcdefgh", k=600)) for _ in range(4500))
    whole = FORMS[name](text)
    damaged = whole[: len(whole) * 9 // 10] + b"\xff" * 1000
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("é", encoding="utf-8")
    sample = {"prompt_file": str(prompt)}
    config = configure(tiny, tmp_path / name, damaged, vocab_size=9, sample=sample)
    for _, check in list_checks(config, built_in="data/shakespeare", checkpoint_dir="checkpoints"):
        check()
    with pytest.raises(ConfigError, match="vocab_size: found 8; allowed: at least 9"):
        check_characters(get_config(config, vocab_size=8))


def test_a_character_of_the_prompt_that_a_small_text_lacks_is_told(
    name: str, tiny: Config, tmp_path: Path
) -> None:
    config = configure(tiny, tmp_path / name, FORMS[name]("abc\n" * 99), sample={"prompt": "cab"})
    check_prompt(config)
    with pytest.raises(ConfigError) as error:
        check_prompt(get_config(config, sample={"prompt": "cèdê"}))
    assert str(error.value) == (
        "sample.prompt: found 'è' (U+00E8); allowed: the characters of"
        f" {tmp_path / 'raw'}, or any with tokenizer: byte"
    )


def test_a_text_over_several_files_is_looked_at_as_one(tiny: Config, tmp_path: Path) -> None:
    for at, (name, form) in enumerate(FORMS.items()):
        if name != "a.txt.zst":
            text = chr(ord("a") + at) * 99
            config = configure(tiny, tmp_path / name, form(text), sample={"prompt": "abde"})
    check_prompt(config)
    check_length(config)
    with pytest.raises(ConfigError, match="vocab_size: found 4; allowed: at least 5"):
        check_characters(get_config(config, vocab_size=4))
    with pytest.raises(ConfigError, match="found 'c'"):
        check_prompt(get_config(config, sample={"prompt": "c"}))


def test_a_pattern_is_refused_in_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    Path("raw/a.txt").write_text("text\n" * 99, encoding="utf-8")
    Path("params.yaml").write_text("corpus: raw/*.txt\n", encoding="utf-8")
    with pytest.raises(NanoGPT2Error, match=r"corpus: raw/\*\.txt is a pattern, .* such as raw \("):
        check_run("params.yaml", built_in="data/shakespeare", checkpoint_dir="checkpoints")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two texts and an empty copy of it, the current folder."""
    copy = tmp_path / ".dvc/tmp/exps/copy"
    copy.mkdir(parents=True)
    (tmp_path / "data/raw/deep").mkdir(parents=True)
    (tmp_path / "data/raw/deep/a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "hint.txt").write_text("a", encoding="utf-8")
    monkeypatch.chdir(copy)
    return tmp_path


def params(text: str) -> str:
    Path("params.yaml").write_text(text, encoding="utf-8")
    return "params.yaml"


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        ("corpus: data/raw", "dvc add data/raw && git add data/raw.dvc data/.gitignore"),
        ("corpus: data/raw/deep/a.txt", "git add data/raw/deep/a.txt"),
        ("sample: {prompt_file: hint.txt}", "git add hint.txt"),
    ],
)
def test_what_the_project_alone_has_is_named(project: Path, line: str, mend: str) -> None:
    with pytest.raises(ConfigError, match=f"not in the copy .*: {mend}$"):
        check_copy(params(line), project)


@pytest.mark.parametrize("tracked", ["data/raw.dvc", "data.dvc", "data/raw/deep/a.txt.dvc"])
def test_what_dvc_brings_is_left_to_it(project: Path, tracked: str) -> None:
    Path(tracked).parent.mkdir(parents=True, exist_ok=True)
    Path(tracked).write_text("", encoding="utf-8")
    check_copy(params("corpus: data/raw/deep/a.txt"), project)


def test_a_text_that_is_nowhere_or_a_wrong_value_is_left_to_the_other_checks(project: Path) -> None:
    check_copy(params("corpus: nowhere"), project)
    check_copy(params("corpus: [1, 2]"), project)
    check_copy(params(f"corpus: {project / 'data/raw'}"), project)


@pytest.mark.parametrize("separator", ["", "\n"])
def test_windows_can_follow_only_documents_that_are_marked(separator: str) -> None:
    with pytest.raises(ConfigError, match=r"^sampling: found documents with separator .*; allowed"):
        check_sampling(get_config({"sampling": "documents", "separator": separator}))
    check_sampling(get_config({"sampling": "documents", "separator": "\n\n"}))
    check_sampling(get_config({"sampling": "epoch", "separator": separator}))
