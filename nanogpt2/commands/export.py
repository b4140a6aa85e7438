"""The command export: a trained model as other tools open it."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nanogpt2.base.screen.screen import done, phase
from nanogpt2.commands.command import shown
from nanogpt2.commands.model import file_options, open_model
from nanogpt2.commands.shared.values import PATH, STATES

if TYPE_CHECKING:
    from nanogpt2.experiments.proof.card import Facts

# Each target, and the function that writes it: (checkpoint, tokenizer, path) -> Export.
TARGETS = {
    "gguf": "nanogpt2.exchange.export.gguf_out:export_gguf",
    "huggingface": "nanogpt2.exchange.export.huggingface_out:export_huggingface",
    "onnx": "nanogpt2.exchange.export.onnx_out:export_onnx",
    "page": "nanogpt2.serve.playground.page:export_page",
    "safetensors": "nanogpt2.exchange.export.huggingface_out:export_safetensors",
}


@click.command()
@click.argument("path", type=PATH)
@click.option(
    "--to",
    "target",
    type=click.Choice(sorted(TARGETS)),
    show_default="huggingface",
    help="huggingface: a folder for transformers; gguf: a file for llama.cpp; onnx: one for ONNX"
    " runtimes; safetensors: one with our own names; page: one that a browser opens, offline.",
)
@click.option("--page", is_flag=True, help="The same as --to page.")
@file_options
@shown
def main(path: Path, target: str | None, page: bool, **which: Any) -> None:
    """Write a model to PATH for other tools, and compare what they make of it."""
    if page and target not in (None, "page"):
        raise click.UsageError(f"--page is --to page, and --to {target} is given: give one of them")
    target = "page" if page else target or "huggingface"
    if which["run"] is None and is_same(path, which["checkpoint"]):
        raise click.UsageError(f"{path} is the model that is read: choose another name")
    module, _, name = TARGETS[target].partition(":")
    checkpoint, tokenizer = open_model(**which, device="cpu")
    known = {"facts": facts_of(path, **which)} if target == "page" else {}
    with phase("writing and comparing"):
        export = getattr(import_module(module), name)(checkpoint, tokenizer, path, **known)
    if target == "huggingface" and which["run"] is None:
        write_card_of(path, which["checkpoint"])
    click.echo("\n".join(export.describe()))
    done(f"a {target} export", to=path)


def is_same(path: Path, other: Path) -> bool:
    """Return whether both names lead to one file or folder, which is there."""
    return path.exists() and other.exists() and path.samefile(other)


def write_card_of(folder: Path, checkpoint: Path) -> None:
    """Write the model card of an export of the model file `checkpoint`; a state has none."""
    if is_model_file(checkpoint):
        from nanogpt2.experiments.proof.facts import gather, write_card

        facts = gather(checkpoint, name=folder.resolve().name, export=folder)
        write_card(folder / "README.md", facts)


def facts_of(path: Path, checkpoint: Path, run: str | None, **_: Any) -> "Facts | None":
    """Return what is known of the model file `checkpoint`, of which `path` will be an export."""
    if run is not None or not is_model_file(checkpoint):
        return None
    from nanogpt2.experiments.proof.facts import gather

    return gather(checkpoint, name=path.stem)


def is_model_file(checkpoint: Path) -> bool:
    """Return whether a model is in one file, and no state of a run that is not over."""
    return checkpoint.is_file() and STATES.name not in checkpoint.parts
