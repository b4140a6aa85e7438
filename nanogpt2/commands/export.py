"""The command export: a trained model as other tools open it."""

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.model import STATES, file_options, open_model
from nanogpt2.screen.screen import done, phase

# Each target, and the function that writes it: (checkpoint, tokenizer, path) -> Export.
TARGETS = {
    "gguf": "nanogpt2.export.gguf_out:export_gguf",
    "huggingface": "nanogpt2.export.huggingface_out:export_huggingface",
    "onnx": "nanogpt2.export.onnx_out:export_onnx",
    "safetensors": "nanogpt2.export.huggingface_out:export_safetensors",
}


@click.command()
@click.argument("path", type=Path)
@click.option(
    "--to",
    "target",
    type=click.Choice(sorted(TARGETS)),
    default="huggingface",
    help="huggingface: a folder for transformers; gguf: a file for llama.cpp; onnx: one for ONNX"
    " runtimes; safetensors: one with our own names.",
)
@file_options
@shown
def main(path: Path, target: str, **which: Any) -> None:
    """Write a model to PATH for other tools, and compare what they make of it."""
    module, _, name = TARGETS[target].partition(":")
    checkpoint, tokenizer = open_model(**which, device="cpu")
    with phase("writing and comparing"):
        export = getattr(import_module(module), name)(checkpoint, tokenizer, path)
    if target == "huggingface" and which["run"] is None:
        write_card_of(path, which["checkpoint"])
    click.echo("\n".join(export.describe()))
    done(f"a {target} export", to=path)


def write_card_of(folder: Path, checkpoint: Path) -> None:
    """Write the model card of an export of the model file `checkpoint`; a state has none."""
    if checkpoint.is_file() and STATES.name not in checkpoint.parts:
        from nanogpt2.proof.facts import gather, write_card

        facts = gather(checkpoint, name=folder.resolve().name, export=folder)
        write_card(folder / "README.md", facts)
