"""The command generate: text from prompts, as it comes."""

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from nanogpt2.base.errors import exit_with_one_line
from nanogpt2.commands.model import model_options, open_model

if TYPE_CHECKING:
    from nanogpt2.config.config import SampleConfig


@click.command()
@model_options
@click.option("--prompt", help="The text to go on from.")
@click.option("--prompt-file", type=Path, help="A UTF-8 file with the prompt.")
@click.option(
    "--prompts",
    type=Path,
    help='A file with a prompt in each line (.jsonl: {"prompt": ...}); one sample for each.',
)
@click.option("--interactive", is_flag=True, help="Ask for prompts, one after the other.")
@click.option("--json", "as_json", is_flag=True, help="With --prompts: write JSON lines.")
@click.option("--max-new-tokens", type=int, help="Tokens after the prompt.")
@click.option("--temperature", type=float, help="Below 1 safer, above 1 wilder, 0 greedy.")
@click.option("--top-k", type=int, help="Draw among the k most likely tokens.")
@click.option("--top-p", type=float, help="Draw among the most likely that make up p.")
@click.option("--min-p", type=float, help="Draw among those p times as likely as the first.")
@click.option("--repetition-penalty", type=float, help="Above 1: avoid what stands there.")
@click.option("--stop", multiple=True, help="A text before which to end; can be repeated.")
@click.option("--window", help="Past block_size: exact, or half, which is quicker.")
@click.option("--seed", type=int, help="Of the first sample; the next have the next seeds.")
@click.option("--half-precision", is_flag=True, help="bfloat16 weights: quicker on a GPU.")
@click.option("--speed", is_flag=True, help="Say tokens per second at the end, on stderr.")
@exit_with_one_line()
def main(
    checkpoint: Path,
    tokenizer: Path,
    device: str,
    prompt: str | None,
    prompt_file: Path | None,
    prompts: Path | None,
    interactive: bool,
    as_json: bool,
    half_precision: bool,
    speed: bool,
    **knobs: Any,
) -> None:
    """Write text as it comes, from a prompt. Knobs not given take params.yaml's defaults."""
    from nanogpt2.commands import console
    from nanogpt2.sample import sample as sampling

    if sum([prompt is not None, prompt_file is not None, prompts is not None, interactive]) > 1:
        raise click.UsageError("give one of --prompt, --prompt-file, --prompts and --interactive")
    config = read_knobs(knobs)
    loaded, known = open_model(checkpoint, tokenizer, device)
    model = loaded.model.bfloat16() if half_precision else loaded.model
    sampler, seed = sampling.make_sampler(model, known, config), config.seed
    meter = sampling.Meter()
    try:
        if interactive:
            take_any_bytes(sys.stdin)
            console.converse(sampler, seed=seed, read=input, write=show, say=say)
        elif prompts is not None:
            asked = sampling.read_prompts(prompts)
            console.write_answers(
                sampler, asked, seed=seed, as_json=as_json, write=show, meter=meter
            )
        else:
            text = sampling.read_prompt_file(prompt_file) if prompt_file else prompt or ""
            console.write_stream(sampler, text, seed=seed, write=show, meter=meter)
    except KeyboardInterrupt:
        say("\ninterrupted\n")
        sys.exit(130)  # as a shell reports SIGINT
    finally:
        if speed and not interactive:
            say(f"{meter}\n")


def read_knobs(knobs: Mapping[str, Any]) -> "SampleConfig":
    """Return the knobs of sampling, checked, those that are None at their defaults."""
    from nanogpt2.config.config import make_config

    given = {name: value for name, value in knobs.items() if value is not None}
    return make_config({"sample": given | {"stop": list(given["stop"])}}, name="generate").sample


def take_any_bytes(stream: TextIO) -> None:
    """Let bytes that are not UTF-8 be characters that the tokenizer refuses, not an end."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="surrogateescape")


def show(text: str) -> None:
    """Write `text` to stdout at once."""
    click.echo(text, nl=False)


def say(text: str) -> None:
    """Write `text` to stderr at once."""
    click.echo(text, nl=False, err=True)
