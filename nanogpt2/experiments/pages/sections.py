"""The sections of the page, as HTML that can be read without JavaScript; page.js adds to them."""

import datetime
from collections.abc import Sequence

from nanogpt2.experiments.compare.columns import Noises, changes, show_value, values_of
from nanogpt2.experiments.compare.groups import BAND, Group, interval
from nanogpt2.experiments.compare.runs import Run
from nanogpt2.experiments.pages import elements
from nanogpt2.experiments.pages.elements import NONE, cell, element, number, row, table, text
from nanogpt2.experiments.significance import CONFIDENCE

PARTS = ("start", "a quarter", "half", "three quarters", "end")


def curves(runs: Sequence[Run]) -> str:
    """Return the place of the chart, and losses at a few steps of each run."""
    rows = []
    for at, run in enumerate(runs):
        steps = run.curve.get("iter", ())
        if not steps:
            continue
        picked = [round(part * (len(steps) - 1) / 4) for part in range(5)]
        cells = [cell(f"{steps[-1]:,.0f}", class_="number")]
        for each in picked:
            train, val = (run.curve.get(name) for name in ("train_loss", "val_loss"))
            shown = " / ".join(f"{column[each]:.4f}" for column in (train, val) if column)
            cells.append(cell(f"{shown} at {steps[each]:,.0f}", class_="number"))
        rows.append(row(text(run.name), cells, data_run=at))
    fallback = table("Training / validation loss at steps", ["run", "steps", *PARTS], rows)
    return (
        '<div id="curves-controls" class="script"></div>'
        '<div class="chart script" id="curves-chart" role="img" aria-describedby="curves-note"'
        ' aria-label="Training and validation loss over steps"></div>'
        '<p id="curves-note">Solid lines are validation, dashed ones training.'
        '<span class="script"> Drag over the chart to zoom into a box; the tools beside it move,'
        " zoom by wheel, and go back.</span></p>"
        '<div id="curves-legend" class="script"></div>'
        f"<details><summary>The curves in figures</summary>{fallback}</details>"
    )


def figures(runs: Sequence[Run], groups: Sequence[Group], base: int, noises: Noises) -> str:
    """Return the table of figures; page.js adds differences to the row that is chosen."""
    group_of = {at: place for place, group in enumerate(groups) for at in group.members}
    rows = []
    for at, run in enumerate(runs):
        cells = [
            element("td", text(", ".join(changes(run, runs[base])) or NONE), class_="changed"),
            number(_seed(run), show_value(run.params.get("seed"))),
        ]
        for column in noises:
            value = run.figures.get(column.key)
            shown = "" if value is None else column.show(value)
            cells.append(number(value, shown, data_key=column.key))
        cells.append(cell(_when(run), class_="date"))
        rows.append(
            row(_name(run, at), cells, data_run=at, data_group=group_of.get(at), id=f"run-{at}")
        )
    head = ["run", "changed", "seed", *(text(column.title) for column in noises), "committed"]
    every = table("Figures of every run", head, rows, identifier="figures-table", sortable=True)
    return (
        '<div id="figures-controls" class="script"></div>'
        + f'<div class="tall">{every}</div>'
        + f"<p>{_describe_noise(noises)}</p>"
    )


def _name(run: Run, at: int) -> str:
    title = f"{run.subject}\n{run.commit or ''}".strip()
    notes = "".join(f'<span class="note">{text(note)}</span>' for note in run.notes)
    name = element("a", text(run.name), href=f"#reproduce-{at}", title=title or None)
    return (
        f'<input type="checkbox" class="chosen script" data-run="{at}"'
        f"{elements.attributes(aria_label=f'compare {run.name} below')}>"
        f'{name}<span class="note">{_kind(run)}</span>{notes}'
    )


def _kind(run: Run) -> str:
    if run.kind == "running":
        at, last = run.progress["iter"], run.progress["max_iters"]
        return text(f"step {at:,} of {last:,}, {run.progress['tokens_per_second']:,.0f} tokens/s")
    if run.kind == "experiment":
        return text(f"experiment on {str(run.base)[:7]}")
    return text(f"commit {run.commit[:7]}" if run.commit else "not committed")


def _when(run: Run) -> str:
    if run.time is None:
        return NONE
    return f"{datetime.datetime.fromtimestamp(run.time, datetime.UTC):%Y-%m-%d %H:%M}"


def _seed(run: Run) -> float | None:
    seed = run.params.get("seed")
    return float(seed) if isinstance(seed, int) else None


def _describe_noise(noises: Noises) -> str:
    known = [
        f"{column.title} {column.show(noise.margin)}"
        for column, noise in noises.items()
        if noise and column.better
    ]
    if not known:
        return (
            "How much seeds alone change these figures is not known: no setting here has several"
            " seeds. python -m nanogpt2 seeds --n 5 finds out."
        )
    freedom = max(noise.freedom for noise in noises.values() if noise)
    return (
        f"Of 100 differences between two runs that differ by their seeds alone, 99 are within:"
        f" {text('; '.join(known))} (standard deviation over seeds, pooled over the settings that"
        f" have several, {freedom} degrees of freedom). Smaller differences are grey. Of many rows"
        " some pass by luck: the best of many is to be run with other seeds."
    )


def seeds(runs: Sequence[Run], groups: Sequence[Group], base: int, noises: Noises) -> str:
    """Return the means of settings that have several seeds."""
    if not groups:
        return (
            "<p>No setting here has several seeds. <code>python -m nanogpt2 seeds --n 5 -S"
            " key=value</code> runs them.</p>"
        )
    columns = [column for column in noises if column.better and column.split == "val"]
    rows = []
    for at, group in enumerate(groups):
        first = runs[group.members[0]]
        members = ", ".join(str(runs[each].params["seed"]) for each in group.members)
        cells = [cell(members, class_="date")]
        for column in columns:
            values = list(values_of(column, runs, group).values())
            if len(values) < 2:
                cells.append(number(None, "", data_key=column.key))
                continue
            mean, low, _ = interval(values)
            shown = f"{column.show(mean)} ± {column.show(mean - low)}"
            cells.append(number(mean, shown, data_key=column.key))
        what = ", ".join(changes(first, runs[base])) or "as the base"
        name = f'<span class="setting">{text(what)}</span>'
        rows.append(row(name, cells, data_group=at))
    head = ["setting", "seeds", *(text(column.title) for column in columns)]
    return (
        table("Means over seeds", head, rows, identifier="seeds-table", sortable=True)
        + f"<p>± is the {BAND:.0%} interval of the mean (Student's t)."
        f'<span class="script"> Beside the base\'s setting: the mean of the differences by seed and'
        f" its {CONFIDENCE:.0%} interval (paired t test, as <code>seeds</code> has it); one that"
        " holds 0 shows no difference.</span></p>"
    )
