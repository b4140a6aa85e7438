"""The figures of the site as SVG, drawn from params.yaml's configuration and from dvc.yaml."""

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

WIDTH = 400  # of a phone, about: letters keep their size there
TIP = (
    '<defs><marker id="{0}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
    ' orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
)


def draw(name: str, root: Path) -> str:
    """Return the figure `name` of the project at `root` as HTML."""
    height, title, parts = {"model": draw_model, "pipeline": draw_pipeline}[name](root)
    return (
        f'<figure class="drawn" id="figure-{name}" style="max-width: {WIDTH + 80}px">'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{TIP.format(name)}"
        f"{''.join(parts)}</svg><figcaption>{escape(title)}</figcaption></figure>\n"
    )


def box(x: float, y: float, width: float, lines: Iterable[str], kind: str = "box") -> str:
    """Return a box with its middle at `x` and its top at `y`: a name, smaller lines under it."""
    first, *rest = lines
    height = 30 + 15 * len(rest)
    words = f'<text x="{x}" y="{y + 20}">{escape(first)}</text>' + "".join(
        f'<text class="small" x="{x}" y="{y + 35 + 15 * number}">{escape(line)}</text>'
        for number, line in enumerate(rest)
    )
    place = f'x="{x - width / 2}" y="{y}" width="{width}" height="{height}" rx="6"'
    return f'<rect class="{kind}" {place}/>{words}'


def line(name: str, *points: tuple[float, float]) -> str:
    """Return an arrow through `points` in the figure `name`."""
    path = "L".join(f"{x} {y}" for x, y in points)
    return f'<path class="line" d="M{path}" marker-end="url(#{name})"/>'


def note(x: float, y: float, text: str) -> str:
    return f'<text class="small left" x="{x}" y="{y}">{escape(text)}</text>'


def draw_model(root: Path) -> tuple[int, str, list[str]]:
    """Return height, title and parts of the model of params.yaml, from tokens down to logits."""
    from nanogpt2.config.config import get_config

    config = get_config(root / "params.yaml").resolved()
    C, heads, kv = config.n_embd, config.n_head, config.n_kv_head
    norm = {"rms": "RMS norm", "layer": "layer norm"}[str(config.norm)]
    mlp = {"gelu": "GELU", "relu2": "squared ReLU", "swiglu": "gated by SiLU (SwiGLU)"}
    shared = "" if kv == heads else f", {kv} of keys and values"
    turned = {"rotary": ["queries and keys turned by place (RoPE)"], "learned": []}
    normed = ["queries and keys normed"] * bool(config.qk_norm)
    attention = [
        "attention",
        f"{heads} heads of {C // heads}{shared}",
        *turned[str(config.positions)],
    ]
    mixes = [f"each token with the last {config.mlp_conv}"] * bool(config.mlp_conv)
    embedding = f"wte: {config.vocab_size} by {C}"
    learned = [f"wpe: {config.block_size} by {C}, for each place"] * (config.positions == "learned")
    head = "wte transposed" if config.tied_head else f"lm_head: {config.vocab_size} by {C}"
    cap = [f"soft cap at {config.logit_softcap:g}"] * bool(config.logit_softcap)
    middle, side, parts, y = WIDTH / 2, WIDTH / 2 + 150, list[str](), 8.0
    stack = [
        ("box", ["tokens idx", f"(B, T), T up to {config.block_size}"]),
        ("box", ["embedding", embedding, *learned]),
        ("box", [norm]),
        ("done", [*attention, *normed]),
        ("add", []),
        ("box", [norm]),
        ("done", ["MLP", mlp[str(config.mlp)], *mixes]),
        ("add", []),
        ("box", [norm]),
        ("box", ["head", head, *cap]),
        ("box", ["logits", f"(B, T, {config.vocab_size})"]),
    ]
    tops = {}
    before = branch = 0.0
    for number, (kind, lines) in enumerate(stack):
        if number == 2:
            tops["frame"] = y
            y += 22
        if kind == "add":
            parts.append(f'<circle class="box" cx="{middle}" cy="{y + 11}" r="11"/>')
            parts.append(f'<text x="{middle}" y="{y + 15.5}">+</text>')
            parts.append(
                line(
                    "model", (middle, branch), (side, branch), (side, y + 11), (middle + 13, y + 11)
                )
            )
            height = 22.0
        else:
            parts.append(box(middle, y, 250, lines, kind))
            height = 15.0 + 15 * len(lines)
        if before:
            parts.append(line("model", (middle, before), (middle, y - 1)))
        if number in (2, 5):
            branch = max(before, tops["frame"] - 8) + 8
        before = y + height
        y = before + 22
        if number == 7:
            tops["end"] = y - 6
            y += 10
    first, last = tops["frame"], tops["end"]
    frame = f'x="{middle - 170}" y="{first - 10}" width="340" height="{last - first + 8}" rx="10"'
    parts.append(f'<rect class="frame" {frame}/>')
    parts.append(note(middle - 162, first + 8, f"{config.n_layer} blocks on (B, T, {C})"))
    return int(y), "The model of params.yaml", parts


def draw_pipeline(root: Path) -> tuple[int, str, list[str]]:
    """Return height, title and parts of dvc.yaml's stages, each below those that it waits for."""
    from nanogpt2.config import yaml12

    stages = yaml12.parse((root / "dvc.yaml").read_text(encoding="utf-8"), name="dvc.yaml")[
        "stages"
    ]
    params = yaml12.parse((root / "params.yaml").read_text(encoding="utf-8"), name="params.yaml")
    made = {path: name for name, stage in stages.items() for path in outputs(stage)}
    feeds = {name: sources(stage, made, params) for name, stage in stages.items()}
    rows: dict[str, int] = {}
    while len(rows) < len(stages):
        for name, found in feeds.items():
            if name not in rows and all(other in rows for other in found):
                rows[name] = 1 + max((rows[other] for other in found), default=-1)
    parts, tops, places = [], dict[str, float](), dict[str, float]()
    heights = [
        max(30 + 15 * len(shown(stages[n])) for n in rows if rows[n] == row)
        for row in range(max(rows.values()) + 1)
    ]
    y = 8.0
    for row, height in enumerate(heights):
        names = [name for name in stages if rows[name] == row]
        for number, name in enumerate(names):
            places[name] = WIDTH * (number + 0.5) / len(names)
            tops[name] = y
            parts.append(box(places[name], y, 186, [name, *shown(stages[name])], "done"))
        y += height + 46
    for name, found in feeds.items():
        for number, other in enumerate(sorted(found, key=lambda other: places[other])):
            start = tops[other] + 30 + 15 * len(shown(stages[other]))
            far = rows[name] - rows[other] > 1
            shift = 14 * (number - (len(found) - 1) / 2)
            if far and other == "validate":  # all wait for it; what follows others waits with them
                continue
            if far:
                side = WIDTH - 3 if places[name] >= WIDTH / 2 else 3
                bend = [(places[other] + (80 if side > 9 else -80), start)]
                bend += [(side, start + 22), (side, tops[name] - 22)]
                parts.append(line("pipeline", *bend, (places[name] + shift, tops[name] - 1)))
            else:
                parts.append(
                    line("pipeline", (places[other], start), (places[name] + shift, tops[name] - 1))
                )
    return int(y - 36), "The stages of dvc.yaml", parts


def outputs(stage: Mapping[str, Any]) -> list[str]:
    """Return the paths that a stage writes."""
    entries = [each for kind in ("outs", "metrics", "plots") for each in stage.get(kind, [])]
    return [each if isinstance(each, str) else next(iter(each)) for each in entries]


def sources(
    stage: Mapping[str, Any], made: Mapping[str, str], params: Mapping[str, Any]
) -> set[str]:
    """Return the stages whose outputs a stage reads."""
    found = {made.get(dep) for dep in stage["deps"]}
    found |= {made.get(str(params.get(dep[2:-1]))) for dep in stage["deps"] if dep[:2] == "${"}
    return {name for name in found if name}


def shown(stage: Mapping[str, Any]) -> list[str]:
    """Return what the figure tells of a stage's outputs: at most one line for each folder."""
    folders: dict[str, list[str]] = {}
    for path in outputs(stage):
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, []).append(name)
    lines = []
    for folder, names in folders.items():
        place = f"{folder}/" if folder else ""
        whole = f"{place}{', '.join(names)}"
        lines.append(whole if len(whole) < 33 else f"{place}: {len(names)} files")
    return lines
