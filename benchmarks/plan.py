"""A plan beside a search: `python -m nanogpt2 plan` and 30 trials of Optuna in the same minutes.

    python benchmarks/plan.py clock --out clock.json
    python benchmarks/plan.py plans --texts eight --minutes 3 --folder plans
    python benchmarks/plan.py search --texts eight --minutes 3 --clock clock.json \\
        --plans plans --out trials.jsonl
    python benchmarks/plan.py table --plans plans --trials trials.jsonl

The machine that is planned for runs `clock`, which times steps of random shapes, and `plans`,
which plans for each text in a clone of the project and carries the plan out with `dvc repro`. A
trial of the search has as many steps as the clock says that fit into the minutes, so that a GPU,
which is quicker, can train it; so has what is planned, with `--seeds` seeds. The search is Optuna's
TPE over tokenizer, layers, width, context, batch, dropout, rates and weight decay; its first trial
is the shape of params.yaml. Losses are of the validation text, in nats a character.
"""

import argparse
import gc
import json
import math
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import laws
import numpy as np
import optuna
import runs
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from project import ROOT, environment

from nanogpt2.config.config import get_config, read_values, set_values
from nanogpt2.experiments.plan.choose import STEPPING
from nanogpt2.experiments.plan.recipe import (
    BYTES_PER_TOKEN,
    LEARNING_RATE,
    MUON_LEARNING_RATE,
    VOCABULARIES,
    Choice,
    count_flops,
    make_values,
)
from nanogpt2.experiments.plan.timing import PARTS, Clock, time_steps
from nanogpt2.text.reading.corpus import read_corpus, split
from nanogpt2.tokens.tokenizer import Tokenizer

TRIALS = 30
LAYERS, HEAD, HEADS = (1, 8), 32, (2, 16)
BLOCKS = (64, 128, 256, 512)
TOKENS = (1024, 2048, 4096, 8192)
MOST_TIMED = 4e10  # operations of a step; quicker ones tell how long others take
FEWEST = 20  # steps of a trial
STREAMS = 3  # trials of a text at a time
PARAMS = ROOT / "params.yaml"
PREDICTED = re.compile(r"predicted: validation loss ([\d.]+)")
JUDGED = 500_000  # tokens of validation, at most


# --- The machine that is planned for ---


def time_shapes(options: argparse.Namespace) -> None:
    """Time steps of random shapes of the search's."""
    random_numbers = random.Random(0)
    rows: list[dict[str, Any]] = []
    while len(rows) < options.shapes:
        heads, layers = random_numbers.randint(*HEADS), random_numbers.randint(*LAYERS)
        block, tokens = random_numbers.choice(BLOCKS), random_numbers.choice(TOKENS)
        vocab_size = random_numbers.choice((100, 1000, *VOCABULARIES))
        shape = {"width": HEAD * heads, "layers": layers, "block": block, "batch": tokens // block}
        if tokens * count_flops(HEAD * heads, layers, block, vocab_size) > MOST_TIMED:
            continue
        own = {"n_head": heads, "vocab_size": vocab_size, "device": options.device}
        values = make_values(Choice(**shape, bpe=0, steps=1000, dropout=0.0)) | own
        seconds = time_steps(values, seconds=2.0).step
        rows.append({**shape, "vocab_size": vocab_size, "seconds": seconds})
        print(rows[-1], flush=True)
        options.out.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    clocks = (make_clock(rows[:at] + rows[at + 1 :]) for at in range(len(rows)))
    off = np.array(
        [
            np.log(clock.predict(row)[0] / row["seconds"])
            for clock, row in zip(clocks, rows, strict=True)
        ]
    )
    print(f"a shape left out: {np.sqrt((off**2).mean()):.1%} off, median {np.median(abs(off)):.1%}")


def make_clock(rows: list[dict[str, Any]]) -> Clock:
    """Return the clock that knows these shapes."""
    clock = Clock()
    for row in rows:
        clock.add({part: row[part] for part in PARTS}, row["seconds"])
    return clock


@cache
def read_clock(path: Path) -> Clock:
    """Return the clock that `time_shapes` wrote."""
    return make_clock(json.loads(path.read_text(encoding="utf-8")))


def make_plans(options: argparse.Namespace) -> None:
    """Plan for each text in a clone of the project, and carry the plan out."""
    options.folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(options.texts.glob("*.txt")):
        result = options.folder / f"{path.stem}.json"
        if not result.exists():
            with tempfile.TemporaryDirectory() as folder:
                found = carry_out(path.resolve(), Path(folder, "project"), options.minutes)
            result.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        found = json.loads(result.read_text(encoding="utf-8"))
        print(path.stem, found["predicted"], found["minutes"], found["loss"], flush=True)


def carry_out(text: Path, project: Path, minutes: float) -> dict[str, Any]:
    """Return what a plan said, and what came of it."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
    params = project / "params.yaml"
    set_values(params, {"corpus": str(text)})

    def run(*command: str) -> str:
        done = subprocess.run(
            command,
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
            env=environment(project),
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    began = time.perf_counter()
    said = run(sys.executable, "-m", "nanogpt2", "plan", "--minutes", str(minutes))
    planning = time.perf_counter() - began
    run("dvc", "repro", "prepare")
    run("dvc", "repro", "init")
    began = time.perf_counter()
    run("dvc", "repro", "train")
    training = time.perf_counter() - began
    run("dvc", "repro", "evaluate")
    metrics = json.loads((project / "metrics/eval.json").read_text(encoding="utf-8"))
    return {
        "text": text.stem,
        "said": said,
        "values": read_values(params)[1],
        "predicted": float(PREDICTED.findall(said)[-1]),
        "planning": round(planning / 60, 3),
        "minutes": round(training / 60, 3),
        "loss": metrics["val"]["loss"] * metrics["val"]["tokens"] / len(read_text(text)[1]),
    }


# --- The search ---


@cache
def read_text(path: Path) -> tuple[str, str]:
    """Return training and validation text, as the stage prepare splits them."""
    values = read_values(PARAMS)[1]
    fractions = {name: values[name] for name in ("val_fraction", "test_fraction")}
    parts = split(read_corpus(path)[0], **fractions)
    return parts["train"], parts["val"]


@dataclass(frozen=True)
class Work:
    """What a process of the search does: trials of one text, or what was planned for it."""

    text: Path
    stream: int
    options: argparse.Namespace


def search(options: argparse.Namespace) -> None:
    """Train what was planned, and search, a few trials of each text at a time."""
    texts = sorted(options.texts.glob("*.txt"))
    work = [Work(text, stream, options) for stream in range(STREAMS) for text in texts]
    places: Any = get_context("spawn").Queue()
    for place in range(len(work)):
        places.put(place)
    with ProcessPoolExecutor(
        len(work),
        mp_context=get_context("spawn"),
        initializer=runs.begin,
        initargs=(places, options.device, None),
    ) as pool:
        for done in as_completed([pool.submit(work_on, each) for each in work]):
            done.result()


def work_on(work: Work) -> None:
    """Make this process's share of a text's runs; each that is finished is a line."""
    options, name = work.options, work.text.stem
    done = {row["text"] for row in runs.read_rows(options.out) if row["trial"] is None}
    if work.stream == 0 and name not in done:
        planned = json.loads((options.plans / f"{name}.json").read_text(encoding="utf-8"))
        for seed in range(options.seeds):
            values = planned["values"] | {"seed": seed}
            bpe = values["vocab_size"] if values["tokenizer"] == "bpe" else 0
            shape = {"width": values["n_embd"], "layers": values["n_layer"]}
            shape |= {"block": values["block_size"], "batch": values["batch_size"]}
            values["max_iters"] = count_steps(shape, bpe, options)
            row = train(work.text, bpe, values, options.device)
            runs.append(options.out, {"text": name, "trial": None, **row})
    storage = JournalStorage(JournalFileBackend(str(options.out.with_suffix(".journal"))))
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        sampler=TPESampler(seed=work.stream, constant_liar=True),
    )
    if work.stream == 1:  # which begins with trials
        study.enqueue_trial(FIRST, skip_if_exists=True)

    def objective(trial: optuna.Trial) -> float:
        began = time.perf_counter()
        bpe, values = propose(trial, len(read_text(work.text)[0]), options)
        row = train(work.text, bpe, values, options.device)
        seconds = round(time.perf_counter() - began, 1)
        line = {"text": name, "trial": trial.number, **row, **trial.params, "seconds": seconds}
        runs.append(options.out, line)
        return float(row["loss"])

    while time.monotonic() < options.ends:
        if len(study.get_trials(deepcopy=False)) >= TRIALS:
            break
        study.optimize(objective, n_trials=1)


FIRST = {
    "tokenizer": 0, "layers": 3, "heads": 4, "block": 128, "tokens": 2048, "dropout": 0.0,
    "rate": 1.0, "muon_rate": 1.0, "weight_decay": 0.1,
}  # fmt: skip


def propose(
    trial: optuna.Trial, characters: int, options: argparse.Namespace
) -> tuple[int, dict[str, Any]]:
    """Return tokens of a bpe, 0 for characters, and the values of a trial."""
    bpes = [size for size in VOCABULARIES if size * BYTES_PER_TOKEN < characters]
    bpe = trial.suggest_categorical("tokenizer", [0, *bpes])
    layers, heads = trial.suggest_int("layers", *LAYERS), trial.suggest_int("heads", *HEADS)
    block, tokens = (
        trial.suggest_categorical("block", BLOCKS),
        trial.suggest_categorical("tokens", TOKENS),
    )
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    rates = [trial.suggest_float(name, 0.3, 3.0, log=True) for name in ("rate", "muon_rate")]
    decay = trial.suggest_float("weight_decay", 0.01, 1.0, log=True)
    shape = {"width": HEAD * heads, "layers": layers, "block": block, "batch": tokens // block}
    steps = count_steps(shape, bpe, options)
    values = make_values(Choice(**shape, bpe=bpe, steps=steps, dropout=dropout)) | {
        "n_head": heads,
        "learning_rate": LEARNING_RATE * rates[0],
        "muon_learning_rate": MUON_LEARNING_RATE * rates[1],
        "weight_decay": decay,
        "seed": trial.number,
    }
    return bpe, values


def count_steps(shape: Mapping[str, int], bpe: int, options: argparse.Namespace) -> int:
    """Return how many steps of a shape fit into the minutes, by the clock."""
    step = read_clock(options.clock).predict({**shape, "vocab_size": bpe or 100})[0]
    return max(int(60 * options.minutes * STEPPING / step), FEWEST)


@cache
def make_tokens(path: Path, bpe: int) -> tuple[Tokenizer, Any, Any]:
    """Return the tokenizer and the tokens of training and validation text."""
    train_text, val_text = read_text(path)
    tokenizer = laws.make_tokenizer(train_text, val_text, bpe)
    return tokenizer, tokenizer.encode(train_text), tokenizer.encode(val_text)


def train(path: Path, bpe: int, values: dict[str, Any], device: str) -> dict[str, Any]:
    """Train as `values` say and return the loss in nats a character."""
    tokenizer, tokens, held_out = make_tokens(path, bpe)
    config = get_config(values | {"vocab_size": tokenizer.size, "device": device})
    (nats,) = laws.train_and_judge(config, tokenizer, tokens, (held_out, JUDGED))
    gc.collect()
    return {"loss": nats / len(read_text(path)[1]), "steps": config.max_iters, "bpe": bpe}


# --- The table ---


def write_table(options: argparse.Namespace) -> None:
    """Print how far plans are from the best of the trials, and from what they said."""
    rows = runs.read_rows(options.trials)
    print("| text | planned, seeds | best of n trials | apart | said | reached | minutes |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(options.plans.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        own = [row for row in rows if row["text"] == found["text"]]
        trials = [row["loss"] for row in own if row["trial"] is not None][:TRIALS]
        seeds = [row["loss"] for row in own if row["trial"] is None]
        mean, off = statistics.mean(seeds), found["predicted"] / found["loss"] - 1
        each = " ".join(f"{loss:.4f}" for loss in seeds)
        print(
            f"| {found['text']} | {mean:.4f} ({each}) | {min(trials):.4f} of {len(trials)} |"
            f" {mean - min(trials):+.4f} | {found['predicted']:.3f} |"
            f" {found['loss']:.4f} ({off:+.1%}) | {found['minutes']:.2f} |"
        )


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)

    def command(name: str, do: Any, *needs: str) -> argparse.ArgumentParser:
        part = commands.add_parser(name)
        part.set_defaults(do=do)
        for need in needs:
            part.add_argument(f"--{need}", type=Path, required=True)
        return part

    clock = command("clock", time_shapes, "out")
    clock.add_argument("--shapes", type=int, default=40)
    clock.add_argument("--device", default="cpu")
    plans = command("plans", make_plans, "texts", "folder")
    trials = command("search", search, "texts", "clock", "plans", "out")
    trials.add_argument("--device", default="cuda")
    trials.add_argument("--seeds", type=int, default=3)
    trials.add_argument("--seconds", type=float, default=math.inf, help="begin no run after these")
    for part in (plans, trials):
        part.add_argument("--minutes", type=float, default=3)
    command("table", write_table, "plans", "trials")
    options = parser.parse_args()
    options.ends = time.monotonic() + getattr(options, "seconds", math.inf)
    options.do(options)


if __name__ == "__main__":
    main()
