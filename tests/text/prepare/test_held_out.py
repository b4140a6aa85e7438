"""Held-out text: long enough to be used, known to training, and the text of recorded figures."""

from collections.abc import Callable
from pathlib import Path

import pytest
from preparing import PREPARED, assert_one_line, make_files, run

from nanogpt2.base.system.files import write_json
from nanogpt2.config.config import Config, get_config
from nanogpt2.evaluate.evaluate import evaluate_splits
from nanogpt2.evaluate.memorisation import check_memorisation
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.dataset import load_prepared_tokenizer, load_split
from nanogpt2.train.trainer import Trainer
from stages.prepare import main as prepare_stage
from stages.validate import main as validate_stage

# --- Splits that are just long enough ---


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
@pytest.mark.parametrize("short", ["train", "val", "test"])
def test_what_passes_is_trained_on_and_evaluated_and_a_token_less_is_refused(
    short: str, tokenizer: str, tiny: Config
) -> None:
    sizes = {"train": 90, "val": 90, "test": 90, short: 2 if short == "test" else 17}
    for less in (1, 0):
        n_letters = {name: size - less * (name == short) for name, size in sizes.items()}
        total = sum(n_letters.values())
        Path("raw.txt").write_bytes(b"a" * total)
        params = {
            "tokenizer": tokenizer,
            "block_size": 16,
            "val_fraction": (n_letters["val"] + 0.5) / total,
            "test_fraction": (n_letters["test"] + 0.5) / total,
        }
        for stage in (validate_stage, prepare_stage):
            done = run(stage, corpus="raw.txt", **params)
            if less:
                assert_one_line(done, f"gives the {short} split {sizes[short] - 1} tokens; allowed")
            else:
                assert done.exit_code == 0, done.output
    config = get_config({**tiny.to_dict(), "vocab_size": 256})
    model = GPT(config)
    splits = [load_split(PREPARED, name, 16) for name in ("train", "val")]
    Trainer(model, config).train(*splits)
    checkpoint = Checkpoint(model.eval(), load_prepared_tokenizer(PREPARED), {})
    figures = evaluate_splits(checkpoint, PREPARED, batch_size=8).figures
    assert {name: row["tokens"] + 1 for name, row in figures.items()} == {
        name: sizes[name] for name in ("val", "test")
    }
    copied, _ = check_memorisation(checkpoint, PREPARED, config.evaluate)
    assert copied["samples"]["longest"] > 0


# --- Tokens that stand only there ---


@pytest.mark.parametrize(
    ("tokenizer", "held_out", "line"),
    [
        ("char", "abc", None),
        ("char", "abz", "tokens that stand only in held-out text: 1 ('z')"),
        ("char", "ää\nö'", """: 4 ('\\n', "'", 'ä', 'ö')"""),
        ("char", "123456", ": 6 ('1', '2', '3', '4', '5', ...)"),
        ("char", "\ufffd", ": 1 ('\ufffd')"),
        ("byte", "a1ä", ": 3 ('1', token 164, token 195)"),
    ],
)
def test_tokens_that_training_never_sees_are_counted(
    tokenizer: str, held_out: str, line: str | None, tmp_path: Path
) -> None:
    text = "abc " * 100 + held_out.ljust(10) + "a" * 10
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    fractions = (10.5 / len(text), 10.5 / len(text))
    description = prepare(
        tmp_path, tmp_path / "out", tokenizer=tokenizer, vocab_size=256, fractions=fractions
    )
    found = [warning for warning in description["warnings"] if "only in held-out text" in warning]
    assert len(found) == (line is not None)
    assert all((line or "") in warning for warning in found)
    n_tokens = description["only_held_out"]
    assert n_tokens["test"] == 0
    assert f": {n_tokens['val']} (" in (found or [": 0 ("])[0]


# --- Figures of another text ---


def what_moved() -> list[str]:
    """Return what the stage says of recorded figures."""
    done = run(prepare_stage, val_fraction=0.25, test_fraction=0.25)
    assert done.exit_code == 0, done.output
    return [line for line in done.stdout.splitlines() if "recorded figures" in line]


@pytest.fixture
def recorded(tiny: Config) -> None:
    """Four files, the last of which is the test split, and the figures of a model on them."""
    for name in "abcz":
        make_files(f"raw/{name}.txt")
        Path(f"raw/{name}.txt").write_text(name * 100, encoding="utf-8")
    assert what_moved() == []
    checkpoint = Checkpoint(GPT(tiny).eval(), load_prepared_tokenizer(PREPARED), {})
    figures = evaluate_splits(checkpoint, PREPARED, batch_size=8).figures
    write_json(Path("metrics/eval.json"), figures | {"memorisation": {"samples": {"longest": 3}}})


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda: None, None),
        (lambda: make_files("raw/zz.md"), None),
        (lambda: Path("raw/a.txt").write_text("q" * 100, encoding="utf-8"), None),
        (lambda: Path("raw/z.txt").write_text("z" * 99 + "y", encoding="utf-8"), "test"),
        (lambda: Path("raw/c.txt").write_text("c" * 99 + "y", encoding="utf-8"), "val"),
        (lambda: make_files("raw/zz.txt"), "val and test"),
        (lambda: make_files("raw/00.txt"), "val and test"),
        (lambda: make_files("raw/deep/er.txt"), "val and test"),
        (lambda: Path("raw/a.txt").rename("raw/zz.txt"), "val and test"),
        (lambda: Path("raw/a.txt").unlink(), "val and test"),
    ],
    ids=[
        *("nothing", "a .md", "text of train", "text of test", "text of val"),
        *("added last", "added first", "added within", "renamed", "removed"),
    ],
)
def test_it_is_said_when_recorded_figures_are_of_another_text(
    change: Callable[[], object], moved: str | None, recorded: None
) -> None:
    change()
    said = what_moved()
    assert len(said) == (moved is not None)
    if moved is not None:
        assert f"the text of {moved} is not that of the recorded figures" in said[0]


@pytest.mark.parametrize("content", ["{", "[1]", "3", "{}", '{"val": {"loss": 1}}', '{"val": 2}'])
def test_figures_that_name_no_text_are_no_matter(content: str, recorded: None) -> None:
    Path("metrics/eval.json").write_text(content, encoding="utf-8")
    make_files("raw/zz.txt")
    assert what_moved() == []
