"""A repository as git and DVC keep experiments in it, made in a second from one run that was real.

Each experiment has its own parameters, losses, figures and samples, in the form that DVC gives
them: a commit under refs/exps, and outputs in the cache by their MD5.
"""

import hashlib
import json
import os
import random
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imports import ROOT

FILES = (
    *("dvc.yaml", "params.yaml", "dvc.lock", "metrics/train.json", "metrics/eval.json"),
    *("plots/loss.csv", "plots/position.csv", "plots/tokens.csv"),
)


@dataclass(frozen=True)
class Experiment:
    """What an experiment differs in: its name, parameters, loss, samples, steps of its curve."""

    name: str
    params: Mapping[str, Any]
    loss: float = 1.59
    sample: str = "HAMLET:\nTo be, or not to be.\n"
    points: int = 8
    figures: Mapping[str, Any] | None = None  # changes of those of the val split


def make_project(root: Path, experiments: Iterable[Experiment]) -> None:
    """Make a repository at `root` with the run that this project records, and `experiments`."""
    git = Git(root)
    base = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}
    files = changed(base, Experiment("HEAD", {}), root)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    git("add", "--all")
    git("commit", "--quiet", "--message", "Train")
    head = git("rev-parse", "HEAD").strip()
    git.keep(head, {each.name: changed(files, each, root) for each in experiments})


class Git:
    """Runs git in a new repository at `root`, with nobody's configuration."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = os.environ | {
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{f"GIT_{who}_{key}": value for who in ("AUTHOR", "COMMITTER") for key, value in
               {"NAME": "test", "EMAIL": "test@example.org", "DATE": "1700000000 +0000"}.items()},
        }  # fmt: skip
        root.mkdir(parents=True)
        (root / ".dvc").mkdir()
        (root / ".dvc/config").touch()
        (root / ".dvc/.gitignore").write_text("/cache\n/tmp\n")
        (root / ".gitignore").write_text("/logs/\n/samples\n/report.html\n")
        self("init", "--quiet", "--initial-branch=main")

    def __call__(self, *words: str, given: bytes = b"") -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=self.root,
            env=self.env,
            input=given,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode("utf-8")

    def keep(self, base: str, experiments: Mapping[str, Mapping[str, str]]) -> None:
        """Keep each experiment's files in a commit on `base`, under DVC's name for it."""
        stream = []
        for number, (name, files) in enumerate(experiments.items()):
            message = f"dvc: commit experiment {name}".encode()
            stream.append(f"commit refs/exps/{base[:2]}/{base[2:]}/{name}\n".encode())
            stream.append(
                f"committer test <test@example.org> {1700000001 + number} +0000\n".encode()
            )
            stream.append(b"data %d\n%s\nfrom %s\n" % (len(message), message, base.encode()))
            for path, text in files.items():
                content = text.encode("utf-8")
                stream.append(b"M 100644 inline %s\n" % path.encode())
                stream.append(b"data %d\n%s\n" % (len(content), content))
        self("fast-import", "--quiet", given=b"".join(stream))


def changed(files: Mapping[str, str], experiment: Experiment, root: Path) -> dict[str, str]:
    """Return the `files` of a run as `experiment` changes them; its outputs go into the cache."""
    lock, params = files["dvc.lock"], files["params.yaml"]
    for key, value in experiment.params.items():
        shown = json.dumps(value)
        params = re.sub(rf"^{key}: *\S*", f"{key}: {shown} ", params, flags=re.MULTILINE)
        lock = re.sub(rf"^(        {key}:).*$", rf"\1 {shown}", lock, flags=re.MULTILINE)
    samples = [f"{number}. {experiment.sample}" for number in range(1, 6)]
    folder = [
        {"md5": cache(root, text.encode("utf-8")), "relpath": f"sample_{number}.txt"}
        for number, text in enumerate(samples, 1)
    ]
    listed = cache(root, json.dumps(folder).encode("utf-8"), ".dir")
    copies = cache(root, f"--- sample 1 ---\n{experiment.sample}".encode())
    dataset = {
        **{"characters": 4670077, "tokens": 4670077, "vocabulary": 69, "tokenizer": "char"},
        "splits": {"train": {"bytes": 3969567, "tokens": 3969567}},
        "sources": [{"path": "shakespeare.txt", "bytes": 4670077}],
    }
    described = cache(root, json.dumps(dataset).encode("utf-8"))
    prepared = cache(
        root, json.dumps([{"md5": described, "relpath": "dataset.json"}]).encode("utf-8"), ".dir"
    )
    model = hashlib.md5(experiment.name.encode("utf-8")).hexdigest()
    for path, md5 in {
        **{"samples": listed, "metrics/copies.txt": copies, "data/prepared": prepared},
        **{"checkpoints/best_model.pt": model, "checkpoints/final_model.pt": model},
    }.items():
        lock = re.sub(rf"(- path: {path}\n      hash: md5\n      md5: )\S+", rf"\g<1>{md5}", lock)
    figures = json.loads(files["metrics/eval.json"])
    lift = experiment.loss - figures["val"]["loss"]
    for split in ("val", "test"):
        figures[split]["loss"] = round(figures[split]["loss"] + lift, 6)
        figures[split]["bits_per_byte"] = round(figures[split]["loss"] / 0.693147, 6)
    figures["val"] |= experiment.figures or {}
    train = json.loads(files["metrics/train.json"])
    train["best_val_loss"] = train["val_loss"] = round(experiment.loss + 0.004, 6)
    position = [row.split(",") for row in files["plots/position.csv"].splitlines()[1:]]
    moved = [f"{at},{float(val) + lift:.6f},{float(test) + lift:.6f}" for at, val, test in position]
    return {
        "dvc.yaml": files["dvc.yaml"],
        "params.yaml": params,
        "dvc.lock": lock,
        "metrics/train.json": json.dumps(train, indent=2),
        "metrics/eval.json": json.dumps(figures, indent=2),
        "plots/loss.csv": make_curve(experiment),
        "plots/position.csv": "position,val_loss,test_loss\n" + "\n".join(moved) + "\n",
        "plots/tokens.csv": files["plots/tokens.csv"],
    }


def make_curve(experiment: Experiment) -> str:
    """Return losses that fall to the experiment's, at `points` evaluations."""
    rows = ["iter,train_loss,val_loss,learning_rate"]
    steps = [round(1600 * (at + 1) / experiment.points) for at in range(experiment.points)]
    for step in steps:
        above = 2.4 * (200 / (step + 200)) ** 1.5 - 2.4 / 27
        val = experiment.loss + 0.004 + above
        rows.append(f"{step},{val - 0.18 * step / 1600:.6f},{val:.6f},0.008")
    return "\n".join(rows) + "\n"


def cache(root: Path, content: bytes, suffix: str = "") -> str:
    """Put `content` into DVC's cache and return its MD5."""
    md5 = hashlib.md5(content).hexdigest()
    path = root / ".dvc/cache/files/md5" / md5[:2] / f"{md5[2:]}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5 + suffix


def many_experiments(count: int, *, points: int = 100, length: int = 500) -> Sequence[Experiment]:
    """Return `count` experiments: settings of five seeds each, with `points` evaluations."""
    source = random.Random(1)
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    settings = [
        {"learning_rate": rate, "n_layer": layers}
        for layers in (4, 6, 8, 2)
        for rate in (0.008, 0.004, 0.002, 0.016, 0.001)
    ]
    found = []
    for number in range(count):
        setting, seed = settings[number // 5 % len(settings)], number % 5 + 1
        loss = 1.59 + 0.03 * (number // 5) * (-1) ** (number // 5) / 5 + source.gauss(0, 0.004)
        at = source.randrange(len(text) - length)
        found.append(
            Experiment(
                f"seed-{seed}-{number // 5:06x}", {**setting, "seed": seed}, round(loss, 6),
                text[at : at + length], points,
            )
        )  # fmt: skip
    return found
