"""Models that were read, made ready to be served."""

import socket
import time
from collections.abc import Mapping
from dataclasses import replace

from nanogpt2.base.screen.screen import say
from nanogpt2.decode.ensemble.checkpoints import Trained
from nanogpt2.device.memory import free_host_bytes
from nanogpt2.serve.app import Site
from nanogpt2.serve.batching.lanes import fit_rows
from nanogpt2.serve.completions.limits import Limits
from nanogpt2.serve.metrics import Metrics
from nanogpt2.serve.page import make_page
from nanogpt2.serve.run import names_of
from nanogpt2.serve.served import serve_model
from nanogpt2.tokens.tokenizer import Tokenizer


def open_site(
    loaded: Mapping[str, tuple[Trained, Tokenizer]],
    limits: Limits,
    *,
    host: str,
    listening: socket.socket,
    token: str | None,
    int8: bool = False,
) -> Site:
    """Return the site of models by their names; fewer rows than asked for where memory is short.

    With `int8` they decode with weights of 8 bits; DeviceError where one cannot.
    """
    metrics, created, models = Metrics(), int(time.time()), {}
    free = free_host_bytes() // len(loaded)
    for name, (trained, tokenizer) in loaded.items():
        rows = fit_rows(trained.model, limits.rows, free)
        if rows < limits.rows:
            say(f"{name}: {rows} rows side by side: more would take half of the free memory")
        models[name] = serve_model(
            name, trained.model, tokenizer, replace(limits, rows=rows), metrics,
            created=created, int8=int8,
        )  # fmt: skip
    hosts = names_of(host, listening.getsockname()[1])
    shown = {name: (each.tokenizer, each.weights) for name, each in models.items()}
    page = make_page(shown, most_tokens=limits.tokens, asks_token=token is not None)
    return Site(models, page, limits, metrics, token=token, hosts=hosts)
