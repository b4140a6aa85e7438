"""Fit the law of `nanogpt2.experiments.plan` to runs, and tell how far off it is on texts left out.

    python benchmarks/fit_laws.py runs.jsonl more.jsonl --write

The lines are those of laws.py. Runs that overfitted badly (over five epochs, and an eighth worse
than the best n-gram model of their text) are left out: no plan comes near them. What is fitted
makes the logarithms of losses most likely, with lengths drawn towards 4 spreads. With --write the
runs and the law are put beside `nanogpt2/experiments/plan/laws.py`.
"""

import argparse
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanogpt2.experiments.plan.laws import FIGURES, LAW, PILOT, RUNS, Fit, Law, features

STEPS = 250
RATE = 0.05
LENGTH = 4.0  # spreads, towards which lengths are drawn
DRAWN = 0.02  # how strongly
EPOCHS, OVERFITTED = 5, 1.12
COLUMNS = (
    *("bytes", "bpe", "width", "layers", "block", "batch", "steps", "dropout", "rate"),
    *("vocab_size", "train_tokens"),
)


def read_rows(paths: list[Path]) -> list[dict[str, Any]]:
    """Return the runs that count, flat."""
    rows = []
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            figures = row["figures"]
            best = min(value for name, value in figures.items() if name.startswith("order"))
            epochs = row["steps"] * row["batch"] * row["block"] / row["train_tokens"]
            if not (epochs > EPOCHS and row["loss"] > OVERFITTED * best):
                rows.append(
                    {"text": row["text"]}
                    | {name: row[name] for name in COLUMNS}
                    | {"characters": figures["characters"]}
                    | {name: figures[name] for name in FIGURES}
                    | dict(zip(PILOT, row["pilot"], strict=True))
                    | {"loss": round(row["loss"], 5)}
                )
    return rows


def fit(known: np.ndarray[Any, Any], losses: np.ndarray[Any, Any], same: Tensor) -> dict[str, Any]:
    """Return lengths, weights and the rest of `Fit` for scaled features and log losses."""
    x, y = torch.from_numpy(known), torch.from_numpy(losses)
    count, size = x.shape
    start = {
        "lengths": torch.full((size,), LENGTH),
        "weights": torch.full((size,), 0.1),
        "smooth": torch.tensor(0.15),
        "shared": torch.tensor(0.05),
        "shared_length": torch.tensor(2.0),
        "offset": torch.tensor(0.03),
        "noise": torch.tensor(0.01),
    }
    logs = {name: value.double().log().requires_grad_() for name, value in start.items()}
    mean = y.mean().clone().requires_grad_()
    optimizer = torch.optim.Adam([*logs.values(), mean], lr=RATE)
    for _ in range(STEPS):
        p = {name: log.exp() for name, log in logs.items()}
        near = x / p["lengths"]
        squares = (near[:, None] - near[None]).square().sum(-1)
        far = (5 * squares + 1e-12).sqrt()
        within = p["smooth"] ** 2 * (1 + far + far**2 / 3) * torch.exp(-far)
        within = within + (x * p["weights"] ** 2) @ x.T
        own = p["shared"] ** 2 * torch.exp(-squares / (2 * p["shared_length"] ** 2))
        within = within + same * (own + p["offset"] ** 2)
        within = within + (p["noise"] ** 2 + 1e-6) * torch.eye(count, dtype=torch.float64)
        root = torch.linalg.cholesky(within)
        away = (y - mean)[:, None]
        unlikely = 0.5 * (away * torch.cholesky_solve(away, root)).sum()
        unlikely = unlikely + root.diagonal().log().sum()
        unlikely = unlikely + DRAWN * (logs["lengths"] - math.log(LENGTH)).square().sum()
        optimizer.zero_grad()
        unlikely.backward()
        optimizer.step()
    found = {name: log.exp().detach().numpy() for name, log in logs.items()}
    return {**found, "mean": mean.item()}


def make_law(rows: list[dict[str, Any]]) -> Law:
    """Return the law fitted to all of `rows`."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "text"}
    texts = np.array([row["text"] for row in rows])
    raw = np.stack([np.asarray(each, float) for each in features(columns).values()], axis=1)
    means, spreads = raw.mean(0), raw.std(0)
    known, losses = (raw - means) / spreads, np.log(columns["loss"])
    found = fit(known, losses, torch.from_numpy(texts[:, None] == texts).double())
    singles = ("smooth", "shared", "shared_length", "offset", "noise", "mean")
    fitted = Fit(
        means, spreads, found["lengths"], found["weights"], *(float(found[s]) for s in singles)
    )
    return Law(fitted, known, losses, texts)


def left_out(law: Law, rows: list[dict[str, Any]], text: str, given: int) -> np.ndarray[Any, Any]:
    """Return errors of the logarithm on `text`, with its `given` quickest runs known alone."""
    own = np.flatnonzero(law.texts == text)
    cost = [rows[i]["steps"] * rows[i]["batch"] * rows[i]["block"] for i in own]
    own = own[np.argsort(cost, kind="stable")]
    kept = np.concatenate([np.flatnonzero(law.texts != text), own[:given]])
    others = Law(law.fit, law.known[kept], law.losses[kept], law.texts[kept])
    asked = own[given:]
    if not len(asked):
        return np.empty(0)
    columns = {n: np.array([rows[i][n] for i in asked]) for n in rows[0] if n != "text"}
    return np.log(others.predict(columns, text)[0]) - law.losses[asked]


def write(law: Law, rows: list[dict[str, Any]]) -> None:
    """Write runs and law."""
    with RUNS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    fitted = law.fit._asdict()
    names = list(features(dict.fromkeys(rows[0], 1.0)))
    by_feature = {
        name: {
            key: round(float(fitted[key][i]), 5)
            for key in ("means", "spreads", "lengths", "weights")
        }
        for i, name in enumerate(names)
    }
    rest = {key: round(value, 6) for key, value in fitted.items() if isinstance(value, float)}
    LAW.write_text(json.dumps({"features": by_feature, **rest}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Fit, tell, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = read_rows(options.runs)
    law = make_law(rows)
    print(
        f"{len(rows)} runs on {len(set(law.texts))} texts; of a text left out, error of the loss:"
    )
    print("| of it known | root mean square | median | n |\n|---|---|---|---|")
    for given in (0, 1, 3):
        errors = np.concatenate([left_out(law, rows, t, given) for t in sorted(set(law.texts))])
        print(
            f"| {given} runs | {np.sqrt((errors**2).mean()):.1%} |"
            f" {np.median(abs(errors)):.1%} | {len(errors)} |"
        )
    if options.write:
        write(law, rows)


if __name__ == "__main__":
    main()
