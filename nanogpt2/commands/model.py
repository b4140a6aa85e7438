"""What the commands on a trained model share: the options that name it, and opening it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from click.core import ParameterSource

from nanogpt2.base.screen.screen import say
from nanogpt2.commands.shared.values import PATH, STATES, TEXT

if TYPE_CHECKING:
    from nanogpt2.decode.ensemble.checkpoints import Trained
    from nanogpt2.model.checkpoint import Checkpoint
    from nanogpt2.tokens.tokenizer import Tokenizer

BEST = "checkpoints/best_model.pt"
FORMS = "Model file, a folder in Hugging Face's form, or a state of an unfinished run"


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options that say which model, or models, read or write, and where."""
    command = click.option("--device", default="auto", help="auto, cpu, cuda or mps.")(command)
    several = click.option(
        "--checkpoint",
        "checkpoints",
        type=PATH,
        multiple=True,
        default=[BEST],
        help=f"{FORMS}; several are an ensemble, whose probabilities are averaged.",
    )
    return several(_other_options(command))


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options that say in which files a model is."""
    one = click.option("--checkpoint", type=PATH, default=BEST, help=f"{FORMS}.")
    return one(_other_options(command))


def _other_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--tokenizer",
            type=PATH,
            default="data/prepared/tokenizer.json",
            help="Read where the model file holds no tokenizer.",
        ),
        click.option(
            "--run",
            type=TEXT,
            is_flag=False,
            flag_value="newest",
            metavar="[NAME]",
            help="Instead, the newest state of a run that is not over; `runs` lists them.",
        ),
    ):
        command = option(command)
    return command


def open_model(
    checkpoint: Path, tokenizer: Path, device: str, run: str | None = None
) -> "tuple[Checkpoint, Tokenizer]":
    """Return the model on the device, and its tokenizer; `run` names an unfinished run.

    Of an unfinished run stderr says at which iteration it is.
    """
    from nanogpt2.model.checkpoint import tokenizer_of

    refuse_both(run)
    loaded = _read(checkpoint, device, run)
    return loaded, tokenizer_of(loaded, tokenizer)


def open_models(
    checkpoints: Sequence[Path], tokenizer: Path, device: str, run: str | None = None
) -> "tuple[Trained, Tokenizer]":
    """Return what `open_model` does, of several files as one model."""
    from nanogpt2.decode.ensemble.checkpoints import combine, tokenizer_of

    refuse_both(run)
    paths = checkpoints if run is None else checkpoints[:1]
    loaded = combine([(path, _read(path, device, run)) for path in paths], tokenizer)
    return loaded, tokenizer_of(loaded, tokenizer)


def refuse_both(run: str | None) -> None:
    """Raise UsageError where the command line names an unfinished `run`, and a model file too."""
    context = click.get_current_context(silent=True)
    named = context and {
        context.get_parameter_source(name) for name in ("checkpoint", "checkpoints")
    }
    if run is not None and named and ParameterSource.COMMANDLINE in named:
        raise click.UsageError("--run reads the state of a run, not --checkpoint: give one of them")


def _read(checkpoint: Path, device: str, run: str | None) -> "Checkpoint":
    from nanogpt2.base.system import files
    from nanogpt2.device.device import find_device
    from nanogpt2.model.checkpoint import load_checkpoint

    place = find_device(device)
    if run is None and not files.exists(checkpoint):
        _refuse_missing(checkpoint)
    if run is not None:
        from nanogpt2.commands.shared.unfinished import find_run

        checkpoint = find_run(STATES, "" if run == "newest" else run)
    if run is None and files.exists(checkpoint / "config.json"):
        from nanogpt2.exchange.incoming.pretrained import load_pretrained

        loaded = load_pretrained(checkpoint, device=place)
    elif run is not None or files.is_folder(checkpoint) or STATES.name in checkpoint.parts:
        loaded = _open_state(checkpoint)
        loaded.model.to(place)
    else:
        loaded = load_checkpoint(checkpoint, device=place)
    return loaded


def _open_state(path: Path) -> "Checkpoint":
    from nanogpt2.commands.shared.unfinished import load_unfinished

    loaded = load_unfinished(path)
    say(f"{path}: not over, at iteration {loaded.origin['iter']}")
    return loaded


def _refuse_missing(checkpoint: Path) -> NoReturn:
    """Raise CheckpointError for a model file that is not there, with all that may help."""
    from nanogpt2.base.system.errors import CheckpointError
    from nanogpt2.commands.shared.unfinished import newest

    context, run = click.get_current_context(silent=True), newest(STATES)
    made = "it" if checkpoint == Path(BEST) else BEST
    lines = [f"{checkpoint}: no such file; `dvc repro train` makes {made}"]
    if run and context and "run" in context.params:  # serve has no --run
        lines.append(
            f"--run, without --checkpoint, reads the newest run that is not over: {run.name},"
            f" iteration {run.step}, {run.about}"
        )
    raise CheckpointError("; ".join(lines))
