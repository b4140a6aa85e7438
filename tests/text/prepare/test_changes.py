"""A text that changes while a stage reads it: refused, since DVC would record what came after."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from nanogpt2.base.screen.screen import running
from nanogpt2.base.screen.state import VERBOSE
from nanogpt2.base.system.errors import DataError
from nanogpt2.config.config import Config
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens import tokenizer as tokenizers
from nanogpt2.tokens.bpe.arrays import TokenArray
from nanogpt2.tokens.tokenizer import CharTokenizer
from stages.prepare import main as prepare_stage
from stages.sample import main as sample_stage

TEXT = "The quick brown fox jumps over the lazy dog. " * 20
OUT = Path("data/prepared")


@pytest.fixture
def raw() -> Path:
    folder = Path("raw")
    for name in ("a.txt", "b/c.txt", "d.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(TEXT, encoding="utf-8")
    (folder / "notes.md").write_text("notes", encoding="utf-8")
    return folder


def prepare_while(change: Callable[[], object]) -> None:
    """Prepare raw, and make `change` once the text is read."""

    class Meanwhile(StringIO):
        """A screen whose reader acts."""

        def write(self, line: str) -> int:
            if line.startswith("read: "):  # which is said at the end of it
                change()
            return len(line)

    with redirect_stderr(Meanwhile()), running("prepare", [VERBOSE]):
        prepare(*(Path("raw"), OUT), tokenizer="char", vocab_size=256, fractions=(0.1, 0.05))


def append() -> None:
    with Path("raw/a.txt").open("a", encoding="utf-8") as file:
        file.write("more")


def change_a_byte_and_keep_size_and_time() -> None:
    path = Path("raw/a.txt")
    before = path.stat()
    path.write_text(TEXT.replace("quick", "quack"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def put_another_file_in_its_place() -> None:
    Path("new").write_text(TEXT.upper(), encoding="utf-8")
    Path("new").replace("raw/a.txt")


def link_to(target: str) -> None:
    Path("other.txt").write_text("other", encoding="utf-8")
    Path("raw/a.txt").unlink()
    Path("raw/a.txt").symlink_to(target)


def make_a_folder_of_it() -> None:
    Path("raw/a.txt").unlink()
    Path("raw/a.txt").mkdir()


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "longer": (append, "a.txt changed while raw was read"),
    "shorter": (lambda: os.truncate("raw/a.txt", 5), "a.txt changed"),
    "emptied": (lambda: os.truncate("raw/a.txt", 0), "a.txt changed"),
    "one byte": (change_a_byte_and_keep_size_and_time, "a.txt changed"),
    "replaced": (put_another_file_in_its_place, "a.txt changed"),
    "other newlines": (
        lambda: Path("raw/a.txt").write_text(TEXT + "\n", encoding="utf-8", newline="\r\n"),
        "a.txt changed",
    ),
    "removed": (lambda: Path("raw/b/c.txt").unlink(), "b/c.txt changed"),
    "added": (lambda: shutil.copy("raw/a.txt", "raw/e.txt"), "e.txt changed"),
    "renamed": (lambda: Path("raw/a.txt").rename("raw/z.txt"), "a.txt, z.txt changed"),
    "folder renamed": (lambda: Path("raw/b").rename("raw/y"), "b/c.txt, y/c.txt changed"),
    "a link": (lambda: link_to("../other.txt"), "a.txt changed"),
    "a folder": (make_a_folder_of_it, "a.txt changed"),
    "no text": (lambda: Path("raw/a.txt").write_bytes(b"\xff\0"), "a.txt changed"),
    "a dangling link": (lambda: link_to("none"), "a.txt is a link that leads nowhere"),
    "all gone": (lambda: shutil.rmtree("raw"), "raw does not exist"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_text_that_changes_is_refused_and_the_old_folder_stays(name: str, raw: Path) -> None:
    prepare(raw, OUT, tokenizer="char", vocab_size=256, fractions=(0.2, 0.1))
    before = {path.name: path.read_bytes() for path in OUT.iterdir()}
    change, problem = CHANGES[name]
    with pytest.raises(DataError, match=problem) as error:
        prepare_while(change)
    assert len(str(error.value).splitlines()) == 1
    assert {path.name: path.read_bytes() for path in OUT.iterdir()} == before
    assert list(OUT.parent.iterdir()) == [OUT]


def test_a_lone_file_that_changes_is_refused(raw: Path) -> None:
    shutil.move("raw/a.txt", "a.txt")
    shutil.rmtree(raw)
    shutil.move("a.txt", "raw")
    with pytest.raises(DataError, match="raw changed while raw was read"):
        prepare_while(lambda: os.truncate("raw", 9))


def test_many_changes_are_one_short_line(raw: Path) -> None:
    def add() -> None:
        for number in range(30):
            shutil.copy("raw/a.txt", f"raw/{number:02}.txt")

    with pytest.raises(DataError, match=r"09\.txt and 20 more changed while raw was read"):
        prepare_while(add)


@pytest.mark.parametrize(
    "change",
    [
        lambda: Path("raw/a.txt").touch(),
        lambda: shutil.copy("raw/a.txt", "raw/notes.md"),
        lambda: Path("raw/._a.txt").write_bytes(b"\0\x05\x16\x07"),
    ],
    ids=["times alone", "a file that is not read", "a companion"],
)
def test_what_does_not_change_the_text_is_no_matter(
    change: Callable[[], object], raw: Path
) -> None:
    prepare_while(change)
    assert (OUT / "dataset.json").exists()


def test_the_stage_refuses_in_one_line(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = CharTokenizer.train

    def meanwhile(text: str) -> CharTokenizer:
        append()
        return train(text)

    monkeypatch.setattr(CharTokenizer, "train", meanwhile)
    Path("my.yaml").write_text("{corpus: raw, block_size: 8}", encoding="utf-8")
    done = CliRunner().invoke(prepare_stage, ["--config", "my.yaml"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("corpus: a.txt changed while raw was read; give the same command")
    assert not OUT.exists()


@pytest.mark.parametrize(
    ("prompt", "content", "refused"),
    [(None, "the lazy", True), (None, "The quick\r\n", False), ("The dog", "the lazy", False)],
    ids=["another prompt", "the same in another form", "a file that is not read"],
)
def test_a_prompt_that_changes_is_refused(
    prompt: str | None, content: str, refused: bool, monkeypatch: pytest.MonkeyPatch, tiny: Config
) -> None:
    class Meanwhile(CharTokenizer):
        def encode(self, text: str) -> TokenArray:
            Path("prompt.txt").write_bytes(content.encode())
            return super().encode(text)

    trained = CharTokenizer.train(TEXT)
    save_checkpoint(Path("m.pt"), GPT(tiny).state_dict(), tiny, tokenizer=trained, origin={})
    monkeypatch.setitem(tokenizers.TOKENIZERS, "char", Meanwhile)
    Path("prompt.txt").write_text("The quick\n", encoding="utf-8")
    knobs = {"prompt": prompt, "prompt_file": "prompt.txt", "num_samples": 1, "max_new_tokens": 4}
    Path("my.yaml").write_text(json.dumps({"device": "cpu", "sample": knobs}), encoding="utf-8")
    done = CliRunner().invoke(sample_stage, ["--config", "my.yaml", "--checkpoint", "m.pt"])
    assert done.exit_code == refused, done.output
    assert Path("samples").exists() != refused
    assert done.stderr.startswith("prompt.txt changed while it was read" * refused)
