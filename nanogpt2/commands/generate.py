"""The command generate: text from prompts, as it comes."""

import sys
from pathlib import Path
from typing import Any

import click

from nanogpt2.base.screen import screen
from nanogpt2.commands.command import shown
from nanogpt2.commands.knobs import PARAMS, knob_options, read_knobs
from nanogpt2.commands.model import model_options, open_models
from nanogpt2.commands.shared.values import PATH


@click.command()
@model_options
@click.option("--prompt", help="The text to go on from.")
@click.option("--prompt-file", type=PATH, help="A UTF-8 file with the prompt.")
@click.option(
    "--prompts",
    type=PATH,
    help='A file with a prompt in each line (.jsonl: {"prompt": ...}); one sample for each.',
)
@click.option("--interactive", is_flag=True, help="Ask for prompts, one after the other.")
@click.option("--json", "as_json", is_flag=True, help="With --prompts: write JSON lines.")
@knob_options
@click.option(
    "--params", type=PATH, default=PARAMS, help="Whose group `sample` has the defaults of knobs."
)
@click.option("--half-precision", is_flag=True, help="bfloat16 weights: quicker on a GPU.")
@click.option("--int8", is_flag=True, help="Weights of 8 bits: quicker on a CPU, nearly the same.")
@click.option("--speed", is_flag=True, help="Say how well the memory's speed is used (MBU).")
@shown
def main(
    checkpoints: tuple[Path, ...],
    tokenizer: Path,
    device: str,
    run: str | None,
    prompt: str | None,
    prompt_file: Path | None,
    prompts: Path | None,
    interactive: bool,
    as_json: bool,
    half_precision: bool,
    int8: bool,
    speed: bool,
    params: Path,
    **knobs: Any,
) -> None:
    """Write text as it comes, from a prompt.

    What is not given, the prompt too, is as the group `sample` of params.yaml has it, where that
    file is there, and else as the schema has it. An option given comes first.
    """
    from nanogpt2.commands import console, terminal
    from nanogpt2.sample import sample as sampling
    from nanogpt2.sample.bandwidth import describe_use

    if sum([prompt is not None, prompt_file is not None, prompts is not None, interactive]) > 1:
        raise click.UsageError("give one of --prompt, --prompt-file, --prompts and --interactive")
    if speed and interactive:
        raise click.UsageError("--speed is of one request: it takes no --interactive")
    config, names_file = read_knobs(knobs, params)
    loaded, known = open_models(checkpoints, tokenizer, device, run)
    model = loaded.model.bfloat16() if half_precision else loaded.model
    sampler, seed = sampling.make_sampler(model, known, config, int8=int8), config.seed
    meter = sampling.Meter()
    try:
        if interactive:
            terminal.use_line_editor()
            with screen.still():
                console.converse(
                    sampler,
                    seed=seed,
                    read=input,
                    write=show,
                    say=say,
                    undisturbed=terminal.without_echo,
                )
        elif prompts is not None:
            asked = sampling.read_prompts(prompts)
            console.write_answers(
                sampler, asked, seed=seed, as_json=as_json, write=show, meter=meter
            )
        else:
            if prompt_file is not None:
                text = sampling.read_prompt_file(prompt_file)
            elif prompt is not None:
                text = prompt
            else:
                text = sampling.read_prompt(config) if names_file else config.prompt or ""
            console.write_stream(sampler, text, seed=seed, write=show, meter=meter)
        if speed:
            say(f"{describe_use(model, meter, int8=int8)}\n")
    except KeyboardInterrupt:
        say("\ninterrupted\n")
        sys.exit(130)  # as a shell reports SIGINT
    finally:
        if not interactive:
            screen.done("", meter.tokens, "tokens", seconds=meter.seconds)


def show(text: str) -> None:
    """Write `text` to stdout at once."""
    click.echo(text, nl=False)


def say(text: str) -> None:
    """Write `text` to stderr at once."""
    click.echo(text, nl=False, err=True)
