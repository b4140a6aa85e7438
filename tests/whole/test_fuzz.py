"""Random command lines, parameter files and library calls: none ends with a traceback.

`NANOGPT2_FUZZ=500 pytest -n 0 tests/whole/test_fuzz.py` tries as many of each.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click import Command
from click.testing import CliRunner
from every import EXAMPLES as USUAL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from nanogpt2.__main__ import COMMANDS
from nanogpt2.__main__ import main as commands
from nanogpt2.base.system.errors import NanoGPT2Error
from nanogpt2.config.config import Config, get_config
from nanogpt2.config.schema import load_schema
from nanogpt2.decode.draw import Controls
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.evaluate.score import score_text
from nanogpt2.model.checkpoint import load_checkpoint, save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate
from nanogpt2.sample.sample import Sampler, read_prompts
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.text.reading.corpus import read_corpus
from nanogpt2.tokens.dataset import CharDataset, TokenDataset, load_split
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer
from nanogpt2.train.trainer import Trainer
from stages.evaluate import main as evaluate_stage
from stages.prepare import main as prepare_stage
from stages.sample import main as sample_stage
from stages.train import main as train_stage
from stages.validate import main as validate_stage

EXAMPLES = int(os.environ.get("NANOGPT2_FUZZ", USUAL))
STAGES: dict[str, Command] = {
    "validate": validate_stage,
    "prepare": prepare_stage,
    "train": train_stage,
    "evaluate": evaluate_stage,
    "sample": sample_stage,
}
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 50,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

ODD_TEXTS = [
    "",
    " ",
    "\n",
    "-",
    "--",
    "/",
    ".",
    "..",
    "\0",
    "é",
    "日本",
    "\ud800",
    "\ufeff",
    "a" * 300,
]
ODD_NUMBERS = [
    0,
    -1,
    1,
    2,
    3,
    7,
    2**31,
    2**63,
    2**64,
    -(2**63),
    10**30,
    0.0,
    -0.0,
    0.5,
    1.0,
    1e-300,
]
ODD_NUMBERS += [5e-324, 1e300, float("nan"), float("inf"), -float("inf")]
FILES = ["text.txt", "empty.txt", "bytes.bin", "model.pt", "cut.pt", "data", "none", "p.jsonl"]
FILES += [
    "params.yaml",
    "data/dataset.json",
    "old.pt",
    "odd.jsonl",
    "data/tokenizer.json",
    ".resume",
]
numbers = st.sampled_from(ODD_NUMBERS)
texts = st.sampled_from([*ODD_TEXTS, "the ", "abc def"]) | st.text(
    st.characters(exclude_characters="/~\\"), max_size=6
).filter(lambda text: ".." not in text)
files = st.sampled_from(FILES)
values = numbers | texts | files | st.none() | st.booleans() | st.lists(texts | numbers, max_size=2)


@pytest.fixture
def place(tiny: Config, text: str) -> None:
    """A folder with a text, prepared data, a model, and files that are none of these."""
    Path("text.txt").write_text(text, encoding="utf-8")
    chosen: dict[str, Any] = {"tokenizer": "char", "vocab_size": 64, "fractions": (0.2, 0.1)}
    prepare("text.txt", "data", **chosen)
    known = CharTokenizer.train(text)
    save_checkpoint("model.pt", GPT(tiny).state_dict(), tiny, tokenizer=known, origin={})
    Path("cut.pt").write_bytes(Path("model.pt").read_bytes()[:-40])
    torch.save({"model_state_dict": [], "config": 1}, "old.pt")
    Path("bytes.bin").write_bytes(bytes(range(256)))
    Path("empty.txt").touch()
    Path("p.jsonl").write_text('{"prompt": "the "}\n\n', encoding="utf-8")
    Path("odd.jsonl").write_text('{"prompt": "\\ud800"}\n[\n', encoding="utf-8")
    Path("params.yaml").write_text(json.dumps(tiny.to_dict()), encoding="utf-8")


def assert_polite(command: Command, arguments: list[str], text: str | bytes = "") -> None:
    """Run a command: it ends well, with a usage error, or with lines on stderr."""
    done = CliRunner().invoke(command, arguments, input=text)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert done.exit_code in (0, 1, 2), done.output
    assert "Traceback" not in done.output
    assert done.exit_code == 0 or done.stderr.strip(), arguments


# --- Command lines ---


def as_word(value: Any) -> str:
    """Return `value` as a shell can give it: without NUL, and in bytes that may be no UTF-8."""
    text = str(value).replace("\0", "")
    return os.fsdecode(text.encode("utf-8", "surrogatepass"))


def options_of(command: Command) -> st.SearchStrategy[list[str]]:
    """Return options of `command`, each with a value that may be any."""
    names = [max(p.opts, key=len) for p in command.params if p.opts[0].startswith("-")]
    flags = [n for p in command.params for n in p.opts if getattr(p, "is_flag", False)]
    valued = sorted(set(names) - set(flags)) or ["--nosuch"]
    one = st.one_of(
        st.tuples(st.sampled_from(valued), values.map(as_word)),
        st.tuples(st.sampled_from([*flags, "--help", "-x", "--nosuch"])),
        st.tuples(values.map(as_word)),
    )
    return st.lists(one, max_size=4).map(lambda parts: [word for part in parts for word in part])


MODEL = ["--checkpoint", "model.pt", "--device", "cpu"]
FEW = ["--max-new-tokens", "4"]


def command_lines() -> st.SearchStrategy[list[str]]:
    """Return lines of `python -m nanogpt2`, but for seeds, which would run DVC."""
    lines = []
    for name in sorted(set(COMMANDS) - {"seeds"}):
        command = commands.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        first = [*MODEL, *FEW] if name == "generate" else MODEL if name == "score" else []
        begun = st.just([name, *first])
        lines.append(st.tuples(begun, options_of(command)).map(lambda parts: parts[0] + parts[1]))
    mistyped = st.lists(values.map(as_word), min_size=1, max_size=3)
    return st.one_of(*lines, mistyped).map(shortened)


def shortened(line: list[str]) -> list[str]:
    """Return `line` without what is allowed and takes long."""
    long = [n for n, word in enumerate(line) if word == "--max-new-tokens"][1:]
    return [word for n, word in enumerate(line) if n not in long and n - 1 not in long]


@fuzzed
@given(line=command_lines(), typed=st.lists(texts, max_size=3).map("\n".join))
def test_a_command_line_ends_with_words(place: None, line: list[str], typed: str) -> None:
    assert_polite(commands, line, typed.encode("utf-8", "surrogatepass"))


# --- Parameter files ---


def parameter_files() -> st.SearchStrategy[str]:
    """Return files with one key or two that may hold anything, or text that is no YAML."""
    schema = load_schema()["properties"]
    groups = {name: rule["properties"] for name, rule in schema.items() if "properties" in rule}
    top = st.dictionaries(st.sampled_from([*schema, "nosuch"]), values, min_size=1, max_size=2).map(
        lambda keys: ("", keys)
    )
    grouped = [
        st.tuples(
            st.just(name),
            st.dictionaries(st.sampled_from([*rules, "nosuch"]), values, min_size=1, max_size=2),
        )
        for name, rules in groups.items()
    ]
    changed = st.one_of(top, *grouped).map(write_parameters)
    return changed | st.text(max_size=30) | st.sampled_from(["[", "a: b: c", "n_layer: &a [*a]"])


def write_parameters(change: tuple[str, dict[str, Any]]) -> str:
    group, keys = change
    quick: dict[str, Any] = {
        "corpus": "text.txt", "device": "cpu", "vocab_size": 64, "block_size": 16, "n_layer": 1,
        "n_head": 1, "n_embd": 8, "batch_size": 2, "max_iters": 2, "eval_iters": 1,
        "sample": {"num_samples": 1, "max_new_tokens": 3, "prompt": "the "},
        "evaluate": {"memorisation_samples": 1, "memorisation_tokens": 5},
    }  # fmt: skip
    if group:
        quick[group] = quick.get(group, {}) | keys
    else:
        quick |= keys
    return json.dumps(affordable(quick))


def affordable(keys: dict[str, Any], most: int = 3) -> dict[str, Any]:
    """Return `keys`, large whole numbers that are allowed made small: they only take long."""
    small = {}
    for key, value in keys.items():
        if isinstance(value, dict):
            value = affordable(value)
        large = isinstance(value, int | float) and not isinstance(value, bool) and value > 10**6
        small[key] = most if large and key != "seed" else value
    return small


@fuzzed
@given(text=parameter_files(), stage=st.sampled_from(sorted(STAGES)))
def test_a_parameter_file_is_used_or_refused_in_words(place: None, text: str, stage: str) -> None:
    Path("my.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    chosen = ["--config", "my.yaml"]
    if stage in ("evaluate", "sample"):
        chosen += ["--checkpoint", "model.pt"]
    if stage in ("evaluate", "train"):
        chosen += ["--data", "data"]
    if stage in ("prepare", "sample", "validate"):
        chosen += ["--out", "out" if stage != "validate" else "out.json"]
    assert_polite(STAGES[stage], chosen)


@fuzzed
@given(data=st.data(), stage=st.sampled_from(sorted(STAGES)))
def test_a_stages_options_are_used_or_refused_in_words(
    place: None, data: st.DataObject, stage: str
) -> None:
    Path("quick.yaml").write_text(write_parameters(("", {})), encoding="utf-8")
    line = data.draw(options_of(STAGES[stage]))
    assert_polite(STAGES[stage], ["--config", "quick.yaml", *line])


# --- Library calls ---

tokens: st.SearchStrategy[Any] = st.sampled_from([
    torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 3), torch.zeros(2, 0, dtype=torch.long),
    torch.full((1, 2), 64), torch.full((2, 2), -1), torch.zeros(3, dtype=torch.int32),
    torch.zeros(1, 20, dtype=torch.int32), torch.zeros(1, 3, dtype=torch.bool), [[1, 2]], [1, 2],
    [], [[]], None, "the", 3, np.zeros((1, 4), np.uint16), np.zeros((1, 4)), [[10**30]], [[0.5]],
    [["a"]], {"idx": 1}, torch.zeros(1, 3, dtype=torch.complex64),
])  # fmt: skip
flat: st.SearchStrategy[Any] = st.sampled_from([
    np.zeros(40, np.uint16), np.zeros(40), np.arange(70), torch.zeros(40, dtype=torch.int32), [],
    [1] * 40, "the", None, np.zeros((2, 20), np.uint16), [-1] * 40, [2**33] * 40, [[1]], 5,
    ["a"] * 30, np.zeros(40, bool), [None] * 30,
])  # fmt: skip
WHOLE = TokenDataset(np.arange(60), 16)
datasets: st.SearchStrategy[Any] = st.sampled_from([
    WHOLE, DataLoader(WHOLE), [], [(1, 2)], "the", None, {}, [WHOLE[0]] * 3, 7, [None], iter([]),
    [(torch.zeros(4), torch.zeros(4))], TokenDataset(np.arange(60), 20), np.zeros(9), {0: WHOLE[0]},
    [(torch.full((4,), 99), torch.zeros(4, dtype=torch.int8))], torch.zeros(9, 2, 4).long(),
])  # fmt: skip
amounts = st.sampled_from([number for number in ODD_NUMBERS if not 100 < number < 10**9])
anything = values | amounts


def calls(model: GPT, config: Config) -> dict[str, tuple[Callable[..., object], dict[str, Any]]]:
    """Return entries of the library, with what to give them."""
    known = CharTokenizer("the ")
    few = {"max_new_tokens": amounts | st.none() | texts}
    return {
        "model.generate": (
            model.generate,
            {
                "idx": tokens,
                **few,
                "temperature": anything,
                "top_k": anything,
                "n_tokens": anything,
            },
        ),
        "generate": (
            lambda idx, max_new_tokens, temperature, top_p, seed: generate(
                model, idx, max_new_tokens, controls=Controls(temperature, top_p=top_p), seed=seed
            ),
            {"idx": tokens, **few, "temperature": anything, "top_p": anything, "seed": anything},
        ),
        "Controls": (
            Controls,
            {"top_k": anything, "min_p": anything, "repetition_penalty": anything},
        ),
        "model": (model, {"idx": tokens, "targets": tokens}),
        "loss": (model.loss, {"idx": tokens, "targets": tokens}),
        "TokenDataset": (TokenDataset, {"tokens": flat, "block_size": anything}),
        "CharDataset": (CharDataset, {"text": anything, "block_size": anything}),
        "train": (
            lambda **datasets: Trainer(GPT(config), config).train(**datasets),
            {"train_dataset": datasets, "val_dataset": datasets},
        ),
        "get_config": (
            lambda source, key, value: get_config(source, **{key: value}),
            {"source": anything, "key": st.sampled_from(list(config.to_dict())), "value": anything},
        ),
        "mapping": (get_config, {"source": st.dictionaries(texts, values, max_size=2)}),
        "load_checkpoint": (
            lambda path, device: load_checkpoint(path, device=device),
            {"path": files | texts, "device": texts | st.just("cpu")},
        ),
        "evaluate_tokens": (
            lambda given, batch_size, stride: evaluate_tokens(
                model, given, known, batch_size=batch_size, stride=stride
            ),
            {"given": flat, "batch_size": anything, "stride": anything},
        ),
        "score_text": (lambda text: score_text(model, known, text), {"text": anything}),
        "write_on": (
            lambda prompts, count, stop, seed: Sampler(model, known, count, stop=stop).write_on(
                prompts, seed=seed
            ),
            {
                "prompts": st.lists(texts, max_size=2) | anything,
                "count": amounts,
                "stop": st.lists(texts, max_size=2) | texts,
                "seed": anything,
            },
        ),
        "ByteTokenizer": (ByteTokenizer().encode, {"text": texts}),
        "read_corpus": (read_corpus, {"corpus": files | texts}),
        "read_prompts": (read_prompts, {"path": files | texts}),
        "load_split": (
            load_split,
            {"folder": files | texts, "split": texts | st.just("val"), "block_size": anything},
        ),
    }


NAMES = sorted(calls(GPT({"vocab_size": 64, "n_layer": 1}), get_config("nano")))


@settings(fuzzed, max_examples=4 * EXAMPLES)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_a_library_call_answers_or_says_what_is_wrong(
    place: None, tiny: Config, data: st.DataObject, name: str
) -> None:
    call, kinds = calls(GPT(tiny), tiny)[name]
    arguments = {key: data.draw(kind, key) for key, kind in kinds.items()}
    with suppress(NanoGPT2Error):
        call(**arguments)
