"""Validation losses of settings, each with several seeds, and their paired differences.

    python benchmarks/quality.py --text tinyshakespeare.txt --study cpu --out results.jsonl

The first 90% of the text is for training, the last 10% for validation; tokens are characters, and
vocab_size is their number. Each run trains for all its steps, nothing is chosen by the validation
text, and the last weights predict every character of it once: from windows of block_size side by
side (`loss`), and from windows block_size / 4 apart (`loss_strided`). Each finished run is a line
of the results file, so that a study that was cut off goes on. The first setting of a table is the
base that the others are compared with.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import runs

from nanogpt2.base.system.files import sha256
from nanogpt2.config.config import Config, get_config, read_values
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.evaluate.metrics import summarise
from nanogpt2.experiments.significance import CONFIDENCE, compare, t_quantile
from nanogpt2.model.gpt import GPT
from nanogpt2.text.reading.corpus import read_corpus, split
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.tokens.tokenizer import CharTokenizer
from nanogpt2.train.step import Stepper

EVALUATION_BATCH = 64  # windows

CLASSIC: dict[str, Any] = {
    "architecture": "gpt2",
    "bias": False,
    "n_layer": 6,
    "n_head": 6,
    "n_embd": 384,
    "block_size": 512,
    "dropout": 0.35,
    "batch_size": 32,
    "max_iters": 3000,
    "learning_rate": 2e-3,
    "warmup_iters": 100,
    "min_learning_rate_fraction": 0.0,
    "weight_decay": 1.0,
    "beta2": 0.99,
}
MODERN: dict[str, Any] = {
    "architecture": "modern",
    "mlp": "gelu",
    "logit_softcap": 15.0,
    "n_layer": 8,
    "n_head": 5,
    "n_embd": 320,
    "block_size": 1024,
    "dropout": 0.45,
    "batch_size": 16,
    "max_iters": 3000,
    "optimizer": "muon",
    "learning_rate": 1e-2,
    "muon_learning_rate": 2e-2,
    "schedule": "trapezoid",
    "decay_fraction": 0.6,
    "warmup_iters": 50,
    "min_learning_rate_fraction": 0.0,
    "weight_decay": 0.15,
    "beta2": 0.95,
}
LONG: dict[str, Any] = MODERN | {  # nanoGPT's 82 million tokens, in steps of half as many
    "batch_size": 8,
    "max_iters": 10_000,
    "learning_rate": 7e-3,
    "muon_learning_rate": 1.1e-2,
    "warmup_iters": 100,
    "dropout": 0.48,
}
CPU_SHAPE: dict[str, Any] = {
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "block_size": 64,
    "dropout": 0.0,
    "batch_size": 12,
    "beta2": 0.99,
    "weight_decay": 0.1,
}
SHORT: dict[str, Any] = {"schedule": "cosine", "muon_learning_rate": 1e-2}  # of fewer steps
CPU = MODERN | CPU_SHAPE | SHORT | {"max_iters": 2000}
KNOBS: dict[str, Any] = {"max_iters": 500, "dropout": 0.2, "weight_decay": 0.1}

Table = dict[str, dict[str, Any]]  # parameters by the name of their setting, the base first


def with_changes(base: str, params: dict[str, Any], *changes: dict[str, Any]) -> Table:
    """Return a table of `params` as they are, and with each of `changes` alone."""
    return {base: params} | {
        ", ".join(f"{key} {value}" for key, value in change.items()): params | change
        for change in changes
    }


def with_knobs(classic: dict[str, Any], modern: dict[str, Any]) -> list[Table]:
    """Return two tables: each knob on alone in `classic`, and off alone in `modern`."""
    shared: list[dict[str, Any]] = [
        {"mlp": "relu2"},
        {"mlp": "swiglu"},
        {"n_kv_head": 1},
        {"schedule": "trapezoid"},
        {"ema_decay": 0.998},
        {"bias": True},
    ]
    if classic["dropout"]:
        shared.append({"attention_dropout": 0.0})
    muon = {"optimizer": "muon", "muon_learning_rate": modern["muon_learning_rate"]}
    on: list[dict[str, Any]] = [
        {"positions": "rotary"},
        {"norm": "rms"},
        {"qk_norm": True},
        {"tied_head": False},
        {"zero_init": True},
        {"logit_softcap": 15.0},
        muon,
    ]
    off: list[dict[str, Any]] = [
        {"positions": "learned"},
        {"norm": "layer"},
        {"qk_norm": False},
        {"tied_head": True},
        {"zero_init": False},
        {"logit_softcap": 0.0},
        {"optimizer": "adamw", "learning_rate": classic["learning_rate"]},
    ]
    return [
        with_changes("classic", classic, *on, *shared),
        with_changes("modern", modern, *off, *shared),
    ]


# What other programs know as Qwen3; the soft-cap alone, or SwiGLU alone, they do not.
OPEN: list[dict[str, Any]] = [
    {"mlp": "swiglu", "logit_softcap": 0.0},
    {"mlp": "swiglu"},
    {"logit_softcap": 0.0},
]


def with_open(base: str, params: dict[str, Any]) -> list[Table]:
    """Return a table of `params` as they are, and with what other programs open."""
    return [with_changes(base, params, *OPEN)]


RECIPE: list[dict[str, Any]] = [
    {"mtp_weight": 0.3},
    {"optimizer": "normuon"},
    {"optimizer": "normuon", "mtp_weight": 0.3},
]

REGULARISED: list[dict[str, Any]] = [
    {"batch_size": 8, "max_iters": 6000, "learning_rate": 7e-3, "muon_learning_rate": 1.4e-2}
    | {"warmup_iters": 100},
    {"muon_learning_rate": 1e-2},
    {"weight_decay": 0.3},
    {"weight_decay": 0.6},
    {"dropout": 0.55},
]

DEFAULT = read_values(Path(__file__).parents[1] / "params.yaml")[1]

STUDIES: dict[str, list[Table]] = {
    "classic": [
        with_changes(
            "classic",
            CLASSIC,
            {"weight_decay": 0.1},
            {"attention_dropout": 0.0},
            {"learning_rate": 4e-3},
            {"block_size": 256, "batch_size": 64},
        )
    ],
    "modern": [{"modern": MODERN}],
    "long": [{"long": LONG}],
    "regularise": [with_changes("modern", MODERN, *REGULARISED)],
    "cpu": [{"cpu": CPU}],
    "recipe": [with_changes("modern", MODERN, *RECIPE)],
    "recipe-cpu": [with_changes("cpu", CPU, *RECIPE)],
    "sampling": [with_changes("default run", DEFAULT, {"sampling": "random"})],
    "sampling-modern": [with_changes("modern", MODERN, {"sampling": "random"})],
    "open-default": with_open("default run", DEFAULT),
    "open-small": with_open("small", read_values("small")[1]),
    "open-modern": with_open("modern", MODERN),
    "knobs": with_knobs(CLASSIC | KNOBS, MODERN | SHORT | KNOBS),
    "cpu-knobs": with_knobs(
        CLASSIC | CPU_SHAPE | {"max_iters": 400, "learning_rate": 4e-3},
        MODERN | CPU_SHAPE | SHORT | {"max_iters": 400},
    ),
}


@dataclass(frozen=True)
class Job:
    """One run: a setting with a seed on a text."""

    text: Path
    setting: str
    params: dict[str, Any]
    name: str  # a hash of all that decides the result but the code
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.setting}, seed {self.params['seed']}"


def make_job(text: Path, setting: str, params: dict[str, Any], **facts: Any) -> Job:
    """Return the run of `params` and `facts`: seed, vocab_size, device, mixed_precision."""
    params = params | facts
    config = get_config(params)
    decisive = [config.training_dict(), config.device, sha256(text.read_bytes())]
    return Job(text, setting, params, sha256(json.dumps(decisive).encode())[:16])


# --- One run ---


def run_job(job: Job) -> dict[str, Any]:
    """Train, evaluate the whole validation part in both ways, and return the line of the run."""
    config, source = get_config(job.params), read_corpus(job.text)[0]
    parts = split(source, val_fraction=0.1, test_fraction=0)
    tokenizer = CharTokenizer.train(source)
    began = time.perf_counter()
    dataset = TokenDataset(tokenizer.encode(parts["train"]), config.block_size)
    stepper = train(config, dataset)
    seconds = time.perf_counter() - began
    model = stepper.model
    val, stride = tokenizer.encode(parts["val"]), max(config.block_size // 4, 1)
    scores = [
        evaluate_tokens(model, val, tokenizer, batch_size=EVALUATION_BATCH, stride=each)
        for each in (None, stride)
    ]
    figures = [summarise(score.totals) for score in scores]
    return {
        "setting": job.setting,
        "seed": config.seed,
        "loss": figures[0]["loss"],
        "loss_strided": figures[1]["loss"],
        "characters": figures[0]["tokens"],
        "parameters": model.count_parameters(),
        "seconds": round(seconds, 1),  # of training
        "machine": runs.describe_machine(stepper.device),
        "config": config.training_dict(),
    }


def train(config: Config, dataset: TokenDataset) -> Stepper:
    """Do all steps and return the stepper, whose model has the weights to evaluate."""
    model = GPT(config)
    stepper = Stepper(model, config)
    model.train()
    for step in range(config.max_iters):
        stepper.step(dataset, step)
    stepper.ema.keep()
    stepper.synchronize()
    return stepper


# --- The table ---


def write_table(table: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Return a Markdown table of the results of each setting, the base first."""
    header = (
        "| setting | seeds | loss | 95% interval | strided |"
        f" minus the base | {CONFIDENCE:.0%} interval |"
    )
    base = next(iter(table.values()))
    rows = [write_row(name, results, base) for name, results in table.items()]
    return "\n".join([header, "|---" * 7 + "|", *rows])


def write_row(name: str, results: Sequence[dict[str, Any]], base: Sequence[dict[str, Any]]) -> str:
    """Return a setting's row; differences are over the seeds that the base has too."""
    if not results:
        return f"| {name} | 0 | | | | | |"
    losses = [row["loss"] for row in results]
    cells = [name, str(len(losses)), f"{statistics.fmean(losses):.4f}", interval(losses)]
    cells.append(f"{statistics.fmean(row['loss_strided'] for row in results):.4f}")
    of_base = {row["seed"]: row["loss"] for row in base}
    pairs = [(row["loss"], of_base[row["seed"]]) for row in results if row["seed"] in of_base]
    if results is base or len(pairs) < 2:
        cells += ["", ""]
    else:
        difference = compare(*zip(*pairs, strict=True))
        cells += [f"{difference.mean:+.4f}", f"{difference.low:+.4f} to {difference.high:+.4f}"]
    return f"| {' | '.join(cells)} |"


def interval(losses: Sequence[float]) -> str:
    """Return in words the 95% interval of the mean by Student's t; empty for a single loss."""
    if len(losses) < 2:
        return ""
    mean, count = statistics.fmean(losses), len(losses)
    margin = t_quantile(0.95, count - 1) * statistics.stdev(losses) / math.sqrt(count)
    return f"{mean - margin:.4f} to {mean + margin:.4f}"


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, required=True, help="a .txt file")
    parser.add_argument("--study", choices=STUDIES, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--only", nargs="+", metavar="SETTING", help="these and the base alone")
    parser.add_argument("--device", choices=["cpu", "cuda", "mps"], default="cpu")
    parser.add_argument("--float32", action="store_true", help="no mixed precision")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument(
        "--seconds",
        type=float,
        default=math.inf,
        help="start no run when less than the longest run's time is left of this",
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a finished run")
    return parser.parse_args()


def main() -> None:
    """Run what the results file lacks of a study, and print its tables."""
    options = parse_arguments()
    facts = {
        "vocab_size": CharTokenizer.train(read_corpus(options.text)[0]).size,
        "device": options.device,
        "mixed_precision": not options.float32,
    }
    tables = [
        {
            (name, seed): make_job(options.text, name, params, seed=seed, **facts)
            for seed in options.seeds  # outermost, so that a study cut off has whole pairs
            for name, params in table.items()
            if not options.only or name in (next(iter(table)), *options.only)
        }
        for table in STUDIES[options.study]
    ]
    jobs = {job.name: job for table in tables for job in table.values()}
    failed = runs.run_all(
        jobs.values(),
        run_job,
        options.out,
        workers=options.workers,
        device=options.device,
        seconds=options.seconds,
    )
    done = {row["name"]: row for row in runs.read_rows(options.out)}
    for table in tables:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name, _ in table}
        for (name, _), job in table.items():
            if job.name in done:
                found[name].append(done[job.name])
        print(f"\n{write_table(found)}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
