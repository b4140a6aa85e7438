"""Fit the law of `nanogpt2.experiments.plan` to runs, and tell how far off it is on texts left out.

    python benchmarks/fit_laws.py nanogpt2/experiments/plan/runs.csv runs.jsonl --write
    python benchmarks/fit_laws.py --ends runs.jsonl --write

The lines are those of laws.py, or of the table that --write made. Runs that overfitted badly (over
five epochs, and an eighth worse than the best n-gram model of their text) are left out: no plan
comes near them. What is fitted makes the logarithms of losses most likely, with lengths drawn
towards 4 spreads. With --write the runs and the law are put beside
`nanogpt2/experiments/plan/laws.py`. With --ends it is the law of `nanogpt2.experiments.plan.ends`,
of runs whose half and quarter are known.
"""

import argparse
import csv
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import runs
import torch
from torch import Tensor

from nanogpt2.experiments.plan import ends, laws
from nanogpt2.experiments.plan.laws import (
    FIGURES,
    PILOT,
    Fit,
    Law,
    features,
    read_law,
    read_runs,
)

Losses = np.ndarray[Any, np.dtype[np.float64]]  # or their errors

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
    """Return the runs that count, flat; those with fewer of a run's steps are before it."""
    rows = read_tables(paths)
    for row, line, best in read_lines(paths):
        epochs = row["steps"] * row["batch"] * row["block"] / row["train_tokens"]
        if epochs > EPOCHS and line["loss"] > OVERFITTED * best:
            continue
        for steps, loss in line["starts"]:
            rows.append(row | {"steps": steps, "loss": round(loss, 5)})
        rows.append(row | {"loss": round(line["loss"], 5)})
    return rows


def read_ends(paths: list[Path]) -> list[dict[str, Any]]:
    """Return the runs of which half and quarter are known, with what these reached."""
    rows = read_tables(paths)
    for row, line, _ in read_lines(paths):
        starts = [line["steps"] // steps for steps, _ in line["starts"]]
        if starts[:2] == [2, 4]:
            reached = [*(loss for _, loss in line["starts"][:2]), *line["own"][1:3], line["loss"]]
            names = "half", "quarter", "half_own", "quarter_own", "loss"
            losses = (round(each, 5) for each in reached)
            rows.append(row | dict(zip(names, losses, strict=True)))
    return rows


def read_tables(paths: list[Path]) -> list[dict[str, Any]]:
    """Return the runs of the tables that `write` made."""
    rows = []
    for path in paths:
        if path.suffix == ".csv":
            columns, texts, losses = read_runs(path)
            for at, text in enumerate(texts):
                row = {name: float(values[at]) for name, values in columns.items()}
                rows.append({"text": str(text), **row, "loss": round(math.exp(losses[at]), 5)})
    return rows


def read_lines(paths: list[Path]) -> Iterator[tuple[dict[str, Any], dict[str, Any], float]]:
    """Yield each run of laws.py: what the law reads of it, its line, the best n-gram's loss."""
    lines = [row for path in paths if path.suffix != ".csv" for row in runs.read_rows(path)]
    pieces = {line["name"]: line for line in lines if "figures" in line}
    for line in lines:
        if "piece" not in line:
            continue
        piece = pieces[line["piece"]]
        row = (
            {"text": piece["text"]}
            | {name: line[name] for name in COLUMNS}
            | {"characters": piece["figures"]["characters"]}
            | {name: piece["figures"][name] for name in FIGURES}
            | dict(zip(PILOT, piece["pilot"], strict=True))
        )
        yield row, line, min(v for n, v in piece["figures"].items() if n.startswith("order"))


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


def make_law(rows: list[dict[str, Any]], of_ends: bool) -> Law:
    """Return the law fitted to all of `rows`."""
    columns, read = as_columns(rows, list(range(len(rows)))), features
    losses = np.log(columns["loss"])
    if of_ends:
        losses, read = losses - np.log(columns["half"]), ends.end_features
    texts = np.array([row["text"] for row in rows])
    raw = np.stack([np.asarray(each, float) for each in read(columns).values()], axis=1)
    means, spreads = raw.mean(0), raw.std(0)
    known = (raw - means) / spreads
    found = fit(known, losses, torch.from_numpy(texts[:, None] == texts).double())
    singles = ("smooth", "shared", "shared_length", "offset", "noise", "mean")
    fitted = Fit(
        means, spreads, found["lengths"], found["weights"], *(float(found[s]) for s in singles)
    )
    return Law(fitted, known, losses, texts, read)


def list_starts(rows: list[dict[str, Any]]) -> list[list[int]]:
    """Return for each row the rows of the same run with fewer steps, which are before it."""
    starts: list[list[int]] = []
    for at, row in enumerate(rows):
        before: list[int] = []
        while at > len(before):
            other = rows[at - len(before) - 1]
            differ = {name for name in row if row[name] != other[name]}
            if differ != {"steps", "loss"} or other["steps"] > row["steps"] / 3:
                break
            before.append(at - len(before) - 1)
        starts.append(before)
    return starts


def left_out(
    law: Law, rows: list[dict[str, Any]], starts: list[list[int]], text: str, ratio: int
) -> list[float]:
    """Return errors of the logarithm on `text`, of which no run is known.

    With a `ratio` those of runs that were started with so many times fewer steps, each with that
    alone known.
    """
    known = without(law, text)
    own = [int(i) for i in np.flatnonzero(law.texts == text)]
    if not ratio:
        losses, _ = known.predict(as_columns(rows, own), text)
        return [float(error) for error in np.log(losses) - law.losses[own]]
    errors = []
    for i in own:
        given = [j for j in starts[i] if 0.8 < rows[i]["steps"] / rows[j]["steps"] / ratio < 1.2]
        if given:
            reached = [rows[j]["loss"] for j in given]
            with_start = known.given(as_columns(rows, given), reached, text)
            (loss,), _ = with_start.predict(as_columns(rows, [i]), text)
            errors.append(float(np.log(loss) - law.losses[i]))
    return errors


def errors_of_law(law: Law, rows: list[dict[str, Any]]) -> Iterator[tuple[str, Losses]]:
    """Yield what is known of runs, and errors of the logarithms of their losses."""
    starts, texts = list_starts(rows), sorted(set(law.texts))
    for ratio in (0, 10, 4):
        errors = [left_out(law, rows, starts, text, ratio) for text in texts]
        what = f"the run with {ratio} times fewer steps" if ratio else "nothing"
        yield what, np.concatenate(errors)


def errors_of_ends(law: Law, rows: list[dict[str, Any]]) -> Iterator[tuple[str, Losses]]:
    """Yield the same of runs whose half and quarter are known: by this law, the other, and both."""
    by_this, by_other = np.empty(len(rows)), np.empty(len(rows))
    for text in set(law.texts):
        own = [int(i) for i in np.flatnonzero(law.texts == text)]
        by_this[own] = left_out(law, rows, [], text, 0)
        known = without(read_law(), text)
        for i in own:
            starts = [rows[i] | {"steps": rows[i]["steps"] // n} for n in (2, 4)]
            reached = [rows[i][name] for name in ("half", "quarter")]
            with_starts = known.given(as_columns(starts, [0, 1]), reached, text)
            (loss,), _ = with_starts.predict(as_columns(rows, [i]), text)
            by_other[i] = np.log(loss / rows[i]["loss"])
    starts_of = "the runs with half and a quarter of the steps"
    yield f"{starts_of}, by the law of ends", by_this
    yield f"{starts_of}, by the law of all runs", by_other
    yield f"{starts_of}, by both", (1 - ends.EXPECTED) * by_this + ends.EXPECTED * by_other


def without(law: Law, text: str) -> Law:
    """Return the law with no run on `text` known."""
    others = law.texts != text
    return replace(law, known=law.known[others], losses=law.losses[others], texts=law.texts[others])


def as_columns(rows: list[dict[str, Any]], at: list[int]) -> dict[str, Any]:
    """Return some of the runs as the law takes them."""
    return {name: np.array([rows[i][name] for i in at]) for name in rows[0] if name != "text"}


def write(law: Law, rows: list[dict[str, Any]], runs: Path, fitted: Path) -> None:
    """Write runs and law."""
    with runs.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    values = law.fit._asdict()
    names = list(law.features(dict.fromkeys(rows[0], 1.0)))
    by_feature = {
        name: {
            key: round(float(values[key][i]), 5)
            for key in ("means", "spreads", "lengths", "weights")
        }
        for i, name in enumerate(names)
    }
    rest = {key: round(value, 6) for key, value in values.items() if isinstance(value, float)}
    fitted.write_text(
        json.dumps({"features": by_feature, **rest}, indent=1) + "\n", encoding="utf-8"
    )


def main() -> None:
    """Fit, tell, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--ends", action="store_true", help="fit how runs end")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = (read_ends if options.ends else read_rows)(options.runs)
    law = make_law(rows, options.ends)
    print(
        f"{len(rows)} runs on {len(set(law.texts))} texts; of a text left out, error of the loss:"
    )
    print("| known besides figures and pilot | root mean square | median | n |\n|---|---|---|---|")
    for what, errors in (errors_of_ends if options.ends else errors_of_law)(law, rows):
        print(
            f"| {what} | {np.sqrt((errors**2).mean()):.1%} |"
            f" {np.median(abs(errors)):.1%} | {len(errors)} |"
        )
    if options.write:
        of = ends if options.ends else laws
        write(law, rows, of.RUNS, of.LAW)


if __name__ == "__main__":
    main()
