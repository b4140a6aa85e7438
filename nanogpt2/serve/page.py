"""The server's page: a prompt, its controls, and what one model or two side by side write."""

import json
from collections.abc import Mapping
from importlib.resources import files as resources

from nanogpt2.experiments.pages.elements import element, text
from nanogpt2.serve.playground.page import (
    HINT,
    PROMPT,
    WINDOW,
    describe_tokenizer,
    number_inputs,
    policy,
    read_resource,
)
from nanogpt2.tokens.tokenizer import Tokenizer

SCRIPTS = ("tokens.js", "shown.js")  # of the playground
SHOWN = 8  # alternatives at a token
PANES = 2
PANE = f"""<section class="pane"><p class="row"><label>Model <select class="model"></select></label>
<span class="speed"></span></p>
<div class="text" tabindex="0" role="group" dir="auto" data-colours="surprise"
aria-label="The text. Arrow keys go through it."></div>
<div class="choices" role="status">{HINT}</div></section>"""
TOKEN = """<p class="row"><label>Token of this server <input type="password" id="token" required
autocomplete="off"></label></p>"""


def make_page(
    models: Mapping[str, tuple[Tokenizer, int]], *, most_tokens: int, asks_token: bool
) -> str:
    """Return the page for `models`, their tokenizers and numbers of weights by their names."""
    described = [
        {"id": name, "tokenizer": describe_tokenizer(tokenizer)}
        for name, (tokenizer, _) in models.items()
    ]
    known = json.dumps({"models": described, "shown": SHOWN}, separators=(",", ":"))
    scripts = [*map(read_resource, SCRIPTS), _read("page.js")]
    style = read_resource("page.css") + _read("page.css")
    rules = policy(scripts, style, also="; connect-src 'self'")
    summary = ", ".join(f"{name}: {weights:,} weights" for name, (_, weights) in models.items())
    lengths = {"length_max": str(most_tokens), "length_value": str(min(500, most_tokens))}
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{rules}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>nanoGPT2</title>\n<style>{style}</style>",
            f"<header><h1>nanoGPT2</h1><p>{text(summary)}</p></header>",
            f'<main><form id="form" novalidate>{TOKEN if asks_token else ""}{PROMPT}',
            f'<p class="row">{number_inputs(**lengths)}{WINDOW}</p>',
            '<p class="row"><button type="submit" id="write">Write</button>',
            '<button type="button" id="pause" disabled>Stop</button>',
            '<button type="button" id="other">Another seed</button>',
            '<span id="legend" aria-label="bits of surprise, by colour"></span></p>',
            '<p id="problem" role="alert"></p></form>',
            f'<div class="panes">{PANE * min(PANES, len(models))}</div></main>',
            # no text can end the element
            element("script", known.replace("<", "\\u003c"), type="application/json", id="known"),
            *(f"<script>{script}</script>" for script in scripts),
            "</html>\n",
        ]
    )


def _read(name: str) -> str:
    return resources("nanogpt2.serve").joinpath(name).read_text(encoding="utf-8")
