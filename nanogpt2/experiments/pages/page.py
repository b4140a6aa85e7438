"""The report: one HTML page that needs nothing else, neither a network nor another file.

It can be read without JavaScript; with it, page.js draws charts with BokehJS, and compares.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from nanogpt2.experiments.compare import outputs
from nanogpt2.experiments.compare.cache import Cache
from nanogpt2.experiments.compare.columns import Noises, measure_noises
from nanogpt2.experiments.compare.groups import BAND, Group, group_runs
from nanogpt2.experiments.compare.runs import PREPARED, Run, tokens_per_step
from nanogpt2.experiments.pages import details, sections
from nanogpt2.experiments.pages.elements import attributes, element, text
from nanogpt2.experiments.pages.library import read_scripts
from nanogpt2.experiments.significance import CONFIDENCE, t_quantile

POSITIONS = 256  # points of a curve by position
FREEDOM = 60  # degrees of freedom for which the page has Student's t; beyond them it changes little


NO_SCRIPT = (
    "<noscript><p>Charts, sorting and differences need JavaScript; the figures are all here.</p>"
    "</noscript>"
)


def make_page(runs: Sequence[Run], project: Path, *, live: int | None = None) -> str:
    """Return the page of `runs`; ExtraError without the charts' library.

    `project` is the folder of the project, whose cache has outputs. A `live` page has that version
    and asks its server for later ones.
    """
    cache = Cache(project)
    groups, base = group_runs(runs), choose_base(runs)
    noises, datasets = measure_noises(runs, groups), outputs.read_datasets(runs, cache)
    scripts = [*read_scripts(), _resource("charts.js"), _resource("page.js")]
    parts = {
        "Curves": sections.curves(runs),
        "Figures": sections.figures(runs, groups, base, noises),
        "Over seeds": sections.seeds(runs, groups, base, noises),
        "Loss by position": details.positions(runs),
        "Loss by token": details.tokens(runs),
        "Samples": details.samples(runs, cache),
        "Memorised": details.memorised(runs, cache),
        "Data": details.data(datasets),
        "Speed and energy": details.speed(runs),
        "Reproduce": "".join(details.reproducing(runs)),
    }
    names = {title: title.lower().replace(" ", "-") for title in parts}
    links = "".join(f'<a href="#{name}">{title}</a>' for title, name in names.items())
    curves, *rest = (
        element("section", f"<h2>{title}</h2>{parts[title]}", id=name)
        for title, name in names.items()
    )
    known = json.dumps(_data(runs, groups, base, noises, datasets), ensure_ascii=False, default=str)
    known = known.replace("<", "\\u003c")  # no text can end the element
    policy = _policy(scripts, live=live is not None)
    title = text(f"Runs of {project.resolve().name}")
    top = f"<p>{text(_summary(runs, groups))}</p>{NO_SCRIPT}{curves}"
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en"{attributes(data_live=live)}>',
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>{_resource('page.css')}</style>",
            f'<header><h1>{title}</h1><nav aria-label="sections">{links}</nav>',
            '<button type="button" id="theme" class="script">dark</button></header>\n<main>',
            f'<div id="top">{top}<script type="application/json" id="known">{known}</script></div>',
            *(
                f"<script>{script}</script>" for script in scripts
            ),  # the first chart waits for no more
            element("div", "\n".join(rest), id="rest"),
            '</main>\n<p id="status" role="status" class="script"></p>\n</html>\n',
        ]
    )


def choose_base(runs: Sequence[Run]) -> int:
    """Return the row that others are compared with at first: HEAD, or the first with figures."""
    by_name = {run.name: at for at, run in reversed(list(enumerate(runs)))}
    finished = [at for at, run in enumerate(runs) if run.figures]
    return by_name.get("HEAD", next(iter(finished), 0))


def _resource(name: str) -> str:
    return resources("nanogpt2.experiments.pages").joinpath(name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str], *, live: bool) -> str:
    """Return what the page may do: run its own scripts alone, and load nothing."""
    digests = (hashlib.sha256(script.encode("utf-8")).digest() for script in scripts)
    own = " ".join(f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in digests)
    connect = "; connect-src 'self'" if live else ""
    return (
        f"default-src 'none'; script-src {own};"
        f" style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'{connect}"
    )


def _summary(runs: Sequence[Run], groups: Sequence[Group]) -> str:
    running = sum(run.kind == "running" for run in runs)
    best = min(
        (run for run in runs if "val.loss" in run.figures),
        key=lambda run: run.figures["val.loss"],
        default=None,
    )
    words = [f"{len(runs)} runs" if len(runs) > 1 else "One run"]
    if groups:
        words.append(f"{len(groups)} settings with several seeds")
    if running:
        words.append(f"{running} under way")
    lowest = (
        f" The lowest validation loss is {best.figures['val.loss']:.4f} nats per token"
        f" ({best.name}); where tokens differ, bits per byte compare."
        if best and len(runs) > 1
        else ""
    )
    return ", ".join(words) + "." + lowest


def _data(
    runs: Sequence[Run],
    groups: Sequence[Group],
    base: int,
    noises: Noises,
    datasets: outputs.Datasets,
) -> Mapping[str, Any]:
    """Return what page.js works with."""
    cached = {users[0].hashes[PREPARED]: found for users, found in datasets if found}
    return {
        "base": base,
        "runs": [_run(run, outputs.bytes_per_token(run, cached)) for run in runs],
        "groups": [asdict(group) for group in groups],
        "columns": [
            asdict(column) | {"split": column.split, "noise": noise and noise.margin}
            for column, noise in noises.items()
        ],
        "band": BAND,
        "confidence": CONFIDENCE,
        "t": [t_quantile(CONFIDENCE, freedom) for freedom in range(1, FREEDOM + 1)],
    }


def _run(run: Run, bytes_per_token: Mapping[str, float]) -> dict[str, Any]:
    return {
        "name": run.name,
        "kind": run.kind,
        "params": run.params,
        "data": run.hashes.get(PREPARED),
        "code": run.code,
        "figures": run.figures,
        "texts": run.texts,
        "curve": run.curve,
        "bytesPerToken": bytes_per_token,
        "tokensPerStep": tokens_per_step(run.params),
        "position": {name: _thin(values) for name, values in run.position.items()},
        "tokens": [
            [each.get(key) for key in ("token", "loss", "share_of_loss")]
            for each in run.tokens[:20]
        ],
    }


def _thin(values: Sequence[float]) -> Sequence[float]:
    """Return at most POSITIONS of `values`, each the mean of its neighbours."""
    step = -(-len(values) // POSITIONS)
    if step < 2:
        return values
    pieces = [values[at : at + step] for at in range(0, len(values), step)]
    return [round(sum(piece) / len(piece), 6) for piece in pieces]
