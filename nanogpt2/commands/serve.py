"""The command serve: models over HTTP, to a page, to OpenAI's clients and to Prometheus."""

from pathlib import Path

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.model import BEST, FORMS, open_models
from nanogpt2.commands.shared.values import MONTH, PATH, TEXT, number
from nanogpt2.serve.completions.limits import Limits


@click.command()
@click.option(
    "--checkpoint",
    "checkpoints",
    metavar="[NAME=]FILE[,FILE]",
    multiple=True,
    default=[BEST],
    help=f"{FORMS}; several are served side by side, each by its NAME. FILE,FILE is an ensemble,"
    " whose probabilities are averaged.",
)
@click.option(
    "--tokenizer",
    type=PATH,
    default="data/prepared/tokenizer.json",
    help="Read where a model file holds no tokenizer.",
)
@click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
@click.option("--int8", is_flag=True, help="Weights of 8 bits: quicker on a CPU, nearly the same.")
@click.option(
    "--host", type=TEXT, default="127.0.0.1", help="Address; another than loopback needs a token."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="0 takes any.")
@click.option(
    "--token-file", type=PATH, help="A file with the token that requests then have to send."
)
@click.option(
    "--rows", type=click.IntRange(1, 1024), default=Limits.rows, help="Answers drawn at once."
)
@click.option(
    "--queue", type=click.IntRange(0), default=Limits.queue, help="Answers that may wait."
)
@click.option(
    "--max-tokens", type=click.IntRange(1), default=Limits.tokens, help="Of one answer, at most."
)
@click.option("--max-body", type=click.IntRange(1), default=Limits.body, help="Bytes of a request.")
@click.option(
    "--max-seconds",
    type=number(minimum=0.1, maximum=MONTH),
    default=Limits.request_time,
    help="Of a request.",
)
@shown
def main(
    checkpoints: tuple[str, ...],
    tokenizer: Path,
    device: str,
    int8: bool,
    host: str,
    port: int,
    token_file: Path | None,
    rows: int,
    queue: int,
    max_tokens: int,
    max_body: int,
    max_seconds: float,
) -> None:
    """Serve models on this machine: a page, and OpenAI's /v1/completions.

    Requests are drawn side by side, and each answer is what `generate` writes with the same seed.
    Ctrl-C or SIGTERM lets what runs finish.
    """
    from nanogpt2.base.system.extras import import_extra

    for library in ("starlette", "uvicorn", "prometheus_client"):
        import_extra(library, extra="serve")
    from nanogpt2.base.screen.screen import done, phase, still
    from nanogpt2.base.system.words import counted
    from nanogpt2.serve.run import name_models, open_socket, read_token, run_server
    from nanogpt2.serve.site import open_site

    token = read_token(token_file, host)
    named = name_models(checkpoints)
    limits = Limits(
        rows=rows, queue=queue, tokens=max_tokens, body=max_body, request_time=max_seconds
    )
    with open_socket(host, port) as listening:
        with phase("reading models"):
            loaded = {name: open_models(paths, tokenizer, device) for name, paths in named.items()}
            site = open_site(loaded, limits, host=host, listening=listening, token=token, int8=int8)
        with still():
            run_server(site, listening, say=click.echo)
    done(counted(site.metrics.count_requests(), "request"))
