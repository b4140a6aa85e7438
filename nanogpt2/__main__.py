"""Extra commands for people: `python -m nanogpt2 --help`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nanogpt2.base.errors import exit_with_one_line

if TYPE_CHECKING:
    from nanogpt2.model.checkpoint import Checkpoint
    from nanogpt2.tokens.tokenizer import Tokenizer


@click.group(context_settings={"show_default": True})
def main() -> None:
    """What nanoGPT2 offers beside its pipeline (`dvc repro`)."""


@main.command()
@click.argument("name")
@click.option("--params", type=Path, default="params.yaml", help="The file to change.")
@exit_with_one_line()
def preset(name: str, params: Path) -> None:
    """Write the values of the preset NAME (nano, small, base) into params.yaml.

    Comments, order and all other keys stay as they are.
    """
    from nanogpt2.config.config import use_preset

    changes = use_preset(name, params)
    click.echo("\n".join(changes) or f"{params} has the values of {name} already")


ROOT_OPTION = click.option(
    "--root", type=Path, default=".resume", help="Where states of unfinished runs are kept."
)


@main.group(invoke_without_command=True)
@ROOT_OPTION
@click.pass_context
@exit_with_one_line()
def runs(context: click.Context, root: Path) -> None:
    """List the runs that were cut off and can go on; `runs prune` removes them."""
    from nanogpt2.train.resume import describe_run, list_runs

    context.obj = root
    if context.invoked_subcommand is None:
        found = list_runs(root)
        click.echo("\n".join(map(describe_run, found)) or f"no unfinished runs under {root}")


@runs.command()
@click.argument("names", nargs=-1)
@click.pass_obj
@exit_with_one_line()
def prune(root: Path, names: tuple[str, ...]) -> None:
    """Remove the unfinished runs called NAMES, or all of them; a run under way stays."""
    from nanogpt2.train.resume import prune_runs

    pruned = prune_runs(root, names)
    size = sum(run.bytes for run in pruned)
    click.echo(f"removed {len(pruned)} unfinished runs, {size / 1e6:.1f} MB")


@main.command()
@click.option("--n", type=click.IntRange(min=2), default=5, help="Number of seeds: 1 to n.")
@click.option("-S", "--set-param", "settings", metavar="KEY=VALUE", multiple=True, help="A change.")
@click.option("--against", metavar="KEY=VALUE", multiple=True, help="What to compare with.")
@click.option("--split", type=click.Choice(["val", "test"]), default="val", help="Whose loss.")
@exit_with_one_line()
def seeds(n: int, settings: tuple[str, ...], against: tuple[str, ...], split: str) -> None:
    """Train and evaluate params.yaml, with the changes of -S, once for each seed.

    Prints the loss of each seed, mean and spread. With --against, params.yaml with those changes
    is run with the same seeds, and a paired t test says whether the first is better. Choose by
    val; test is for the last report.
    """
    from nanogpt2.experiments.seeds import compare_settings

    compare_settings(settings, against, range(1, n + 1), split=split, show=click.echo)


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options that say which model reads or writes, and where."""
    default = "checkpoints/best_model.pt"
    for option in (
        click.option("--device", default="auto", help="auto, cpu, cuda or mps."),
        click.option(
            "--tokenizer",
            type=Path,
            default="data/prepared/tokenizer.json",
            help="Read where the model file holds no tokenizer.",
        ),
        click.option("--checkpoint", type=Path, default=default, help="Model file."),
    ):
        command = option(command)
    return command


def open_model(checkpoint: Path, tokenizer: Path, device: str) -> "tuple[Checkpoint, Tokenizer]":
    """Return the model on the device, and its tokenizer."""
    from nanogpt2.device.device import find_device
    from nanogpt2.model.checkpoint import load_checkpoint, tokenizer_of

    loaded = load_checkpoint(checkpoint, device=find_device(device))
    return loaded, tokenizer_of(loaded, tokenizer)


@main.command()
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
def generate(
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
    from nanogpt2.config.config import make_config
    from nanogpt2.sample import sample as sampling

    if sum([prompt is not None, prompt_file is not None, prompts is not None, interactive]) > 1:
        raise click.UsageError("give one of --prompt, --prompt-file, --prompts and --interactive")
    given = {name: value for name, value in knobs.items() if value is not None}
    config = make_config({"sample": given | {"stop": list(given["stop"])}}, name="generate").sample
    loaded, known = open_model(checkpoint, tokenizer, device)
    model = loaded.model.bfloat16() if half_precision else loaded.model
    sampler, seed = sampling.make_sampler(model, known, config), config.seed
    meter = sampling.Meter()
    try:
        if interactive:
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


def show(text: str) -> None:
    """Write `text` to stdout at once."""
    click.echo(text, nl=False)


def say(text: str) -> None:
    """Write `text` to stderr at once."""
    click.echo(text, nl=False, err=True)


@main.command()
@click.argument("file", type=Path)
@model_options
@click.option("--html", "page", type=Path, help="Write a page that colours each character.")
@exit_with_one_line()
def score(file: Path, checkpoint: Path, tokenizer: Path, device: str, page: Path | None) -> None:
    """Say how surprising the text in FILE is: nats a token, bits a byte."""
    from nanogpt2.base import files
    from nanogpt2.evaluate import score as scoring

    text = files.read_text(file)
    loaded, known = open_model(checkpoint, tokenizer, device)
    scored = scoring.score_text(loaded.model, known, text)
    click.echo(scoring.describe_score(scored))
    if page is not None:
        files.write_text(page, scoring.write_page(scored, known, title=file.name))


if __name__ == "__main__":
    main(prog_name="python -m nanogpt2")
