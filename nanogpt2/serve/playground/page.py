"""The page: one HTML file that holds a model and writes with it, without network or other files."""

import base64
import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import CheckpointError, DataError
from nanogpt2.config.config import MODEL_KEYS
from nanogpt2.exchange.export.record import Export
from nanogpt2.experiments.pages.elements import attributes, element, text
from nanogpt2.experiments.proof.card import Facts
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.serve.playground.cost import Cost, measure_cost, with_bits
from nanogpt2.serve.playground.made import how_it_was_made
from nanogpt2.serve.playground.weights import pack
from nanogpt2.tokens.bpe.bpe import BYTE_CHARACTERS
from nanogpt2.tokens.tokenizer import Tokenizer

SCRIPTS = ("model.js", "simd.js", "tokens.js", "write.js", "shown.js", "page.js")
# Keys of a model on which what it computes does not depend, or which its weights tell.
NOT_TOLD = ("vocab_size", "dropout", "attention_dropout", "bias")
FITS = 1_000_000  # bytes: a page with 16 bits a weight that is larger has 8
LARGEST = 384_000_000  # bytes of a page, since a browser's texts have an end
REST = 64_000  # bytes of a page beside its weights, about


@dataclass(frozen=True)
class Contents:
    """What a page is made of, but for the model."""

    name: str
    facts: Facts | None  # None where only the model file tells what it is
    origin: dict[str, Any]  # that of the checkpoint
    cost: Cost | None
    bits: int


def export_page(
    checkpoint: Checkpoint, tokenizer: Tokenizer, file: str | Path, facts: Facts | None = None
) -> Export:
    """Write the page of a model to `file`; `facts` say how it was made.

    A weight has 16 bits where the page then has at most a megabyte, else 8. CheckpointError where
    the page would be too large for a browser.
    """
    path = files.as_file(file)
    files.check_writable(path)
    model = checkpoint.model
    bits = choose_bits(model, n_tokens=tokenizer.size)
    start = start_of(tokenizer)
    other = with_bits(model, bits)
    cost = measure_cost(model, other, start=start, n_tokens=tokenizer.size)
    contents = Contents(path.stem, facts, checkpoint.origin, cost, bits)
    page = make_page(model, tokenizer, contents).encode("utf-8")
    files.write_bytes(path, page)
    notes = [
        f"{len(page):,} bytes, of {bits} bits a weight: {describe_cost(cost)}",
        f"greedy text: {cost.greedy_equal} of {cost.greedy_tokens} tokens are the same as of the"
        " whole weights",
    ]
    return Export("page", "one HTML file, for a browser without network", notes, None)


def choose_bits(model: GPT, *, n_tokens: int) -> int:
    """Return how many bits a weight has in the page of `model`: 16, or 8 where that is too much."""
    unused = (model.config.vocab_size - n_tokens) * model.config.n_embd
    unused *= 1 if model.config.tied_head else 2
    size = 4 * (model.count_parameters() - unused) // 3  # of 8 bits, as base64
    if size > LARGEST:
        raise CheckpointError(f"{size:,} bytes of weights as text; allowed: {LARGEST:,} in a page")
    return 16 if 2 * size + REST <= FITS else 8


def describe_cost(cost: Cost) -> str:
    """Return in words what fewer bits cost."""
    return f"they cost {cost.nats:.5f} nats a token in texts of its own"


def make_page(model: GPT, tokenizer: Tokenizer, contents: Contents) -> str:
    """Return the page of `model`."""
    packed = pack(model.state_dict(), n_tokens=tokenizer.size, bits=contents.bits)
    config = model.config.resolved()
    known = {
        "config": {key: config[key] for key in MODEL_KEYS if key not in NOT_TOLD},
        "n_tokens": tokenizer.size,
        "tokenizer": describe_tokenizer(tokenizer),
        "start": start_of(tokenizer),
        "tensors": packed.tensors,
    }
    # no text can end the element
    described = json.dumps(known, separators=(",", ":")).replace("<", "\\u003c")
    scripts = [read_resource(name) for name in SCRIPTS]
    style = read_resource("page.css")
    weights = base64.b64encode(packed.content).decode("ascii")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy(scripts, style)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(contents.name)}</title>\n<style>{style}</style>",
            f"<header><h1>{text(contents.name)}</h1>",
            f"<p>{text(_summary(model, tokenizer))}</p></header>",
            f"<main>{_form(learned=config['positions'] == 'learned')}{READING}",
            how_it_was_made(model, contents.facts, contents.origin, _bits(contents)),
            "</main>",
            element("script", described, type="application/json", id="known"),
            element("script", weights, type="text/plain", id="weights"),
            *(f"<script>{script}</script>" for script in scripts),
            "</html>\n",
        ]
    )


def _bits(contents: Contents) -> str:
    cost = f"; {describe_cost(contents.cost)}" if contents.cost else ""
    return f"{contents.bits} bits each in this page{cost}"


def _summary(model: GPT, tokenizer: Tokenizer) -> str:
    return (
        f"A language model with {model.count_parameters():,} parameters and"
        f" {tokenizer.size:,} tokens. It runs in this page: nothing is sent, nothing is fetched."
    )


def start_of(tokenizer: Tokenizer) -> list[int]:
    """Return the tokens that an empty prompt stands for: a line break, or the first token."""
    try:
        return [int(token) for token in tokenizer.encode("\n")]
    except DataError:
        return [0]


def describe_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return `tokenizer` as tokens.js takes it; DataError where it has none of that name."""
    known = tokenizer.to_dict()
    if known["name"] == "char":
        return {"name": "char", "code_points": [ord(each) for each in known["characters"]]}
    if known["name"] == "byte":
        return {"name": "byte"}
    if known["name"] != "bpe":
        raise DataError(f"tokenizer: found {known['name']}; allowed in a page: bpe, byte, char")
    numbers = {token: number for number, token in enumerate(known["vocabulary"])}
    made = (merge.replace(" ", "", 1) for merge in known["merges"])
    contents = map(tokenizer.token_bytes, range(tokenizer.size))
    return {
        "name": "bpe",
        "tokens": [base64.b64encode(content).decode("ascii") for content in contents],
        "ranked": [numbers[token] for token in (*BYTE_CHARACTERS, *made)],
    }


def read_resource(name: str) -> str:
    """Return a file of this room, such as a script of the page."""
    return resources("nanogpt2.serve.playground").joinpath(name).read_text(encoding="utf-8")


def policy(scripts: list[str], style: str, also: str = "'wasm-unsafe-eval'") -> str:
    """Return what the page may do: run its own scripts, load nothing, and what `also` says."""
    own, looks = (
        " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode('ascii')}'"
            for each in parts
        )
        for parts in (scripts, [style])
    )
    return (
        f"default-src 'none'; script-src {own} {also}; style-src {looks};"
        " base-uri 'none'; form-action 'none'"
    )


# --- The parts that page.js fills ---

NUMBERS = (
    ("temperature", "Temperature", {"value": "0.8", "min": "0", "max": "10", "step": "0.1"},
     "0 takes the most likely each time"),
    ("top-k", "Top-k", {"value": "0", "min": "0", "step": "1"},
     "draws among so many; 0 among all"),
    ("top-p", "Top-p", {"value": "1", "min": "0.01", "max": "1", "step": "0.01"},
     "draws among those that make up this share"),
    ("seed", "Seed", {"value": "1337", "min": "0", "max": str(2**53 - 1), "step": "1"},
     "the same seed writes the same text"),
    ("length", "Length", {"value": "500", "min": "1", "max": "100000", "step": "1"},
     "tokens in one go"),
)  # fmt: skip
WINDOW = """<label>Past the block <select id="window">
<option value="half">read half anew, quick</option>
<option value="exact">read all anew, slow</option></select></label>"""
HINT = """<p>Point at the text, tap it, or go through it by arrow keys: here is what the model
thought would come there.</p>"""
READING = f"""<section aria-labelledby="written"><h2 id="written">Text</h2>
<p class="row"><label>Colours <select id="colours">
<option value="surprise">surprise</option>
<option value="attention">attention of the chosen place</option>
<option value="none">none</option></select></label>
<label class="attention" hidden>Layer <select id="layer"></select></label>
<label class="attention" hidden>Head <select id="head"></select></label>
<span id="legend" class="surprise" aria-label="bits of surprise, by colour"></span></p>
<div id="text" class="text" tabindex="0" role="group" dir="auto"
aria-label="The text. Arrow keys go through it."></div>
<div id="choices" class="choices" role="status">{HINT}</div></section>"""


PROMPT = """<label for="prompt">The text goes on from</label>
<textarea id="prompt" rows="3" spellcheck="false" autocomplete="off" aria-describedby="problem"
placeholder="nothing: a text from its beginning"></textarea>"""


def number_inputs(**changed: str) -> str:
    """Return the inputs of NUMBERS; `changed` gives other values or bounds, as length_max="9"."""
    bounds = {name: dict(known) for name, _, known, _ in NUMBERS}
    for key, value in changed.items():
        name, _, bound = key.rpartition("_")
        bounds[name][bound] = value
    return "".join(
        f'<label title="{text(hint)}">{label} <input type="number" id="{name}" required'
        f"{attributes(**bounds[name])}></label>"
        for name, label, _, hint in NUMBERS
    )


def _form(*, learned: bool) -> str:
    return f"""<form id="form" novalidate>{PROMPT}
<p class="row">{number_inputs()}{WINDOW if learned else ""}</p>
<p class="row"><button type="submit" id="write">Write</button>
<button type="button" id="pause" disabled>Stop</button>
<button type="button" id="other">Another seed</button>
<span id="speed"></span></p>
<p id="problem" role="alert"></p><p id="engine"></p>
<noscript><p>The model is written in JavaScript, which is switched off here.</p></noscript>
</form>"""
