"""A folder that transformers opens at once: its model, tokenizer, and proof that it is ours."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.config.config import MODEL_KEYS, Config
from nanogpt2.exchange.export.prove import prove_huggingface
from nanogpt2.exchange.export.record import Export, check_replaceable, write_record
from nanogpt2.exchange.incoming.architectures import (
    ARCHITECTURES,
    architecture_of,
    write_architecture,
)
from nanogpt2.exchange.incoming.tokenizer_files import write_tokenizer
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.tokens.description import SpecialTokens
from nanogpt2.tokens.tokenizer import Tokenizer

NOT_COMPARED = "not compared with the model: transformers is not installed"


def export_huggingface(checkpoint: Checkpoint, tokenizer: Tokenizer, folder: str | Path) -> Export:
    """Write `folder` with the model and tokenizer as transformers reads them, and compare.

    A folder of an earlier export is replaced. Raises ConfigError where no architecture computes the
    model, DataError where the folder holds anything else or cannot be written, CheckpointError
    where what transformers computes differs; nothing is left then.
    """
    folder = files.as_path(folder)
    config = checkpoint.model.config
    architecture = ARCHITECTURES[architecture_of(config)]
    check_replaceable(folder)
    exports = []

    def fill(new: Path) -> None:
        write_files(checkpoint, tokenizer, new)
        proof = prove_huggingface(checkpoint.model, tokenizer, new)
        notes = [architecture.past_block, *[NOT_COMPARED] * (proof is None)]
        made = Export("huggingface", architecture.class_name, notes, proof)
        write_record(new, made)
        exports.append(made)

    files.replace_folder(folder, fill)
    return exports[0]


def write_files(checkpoint: Checkpoint, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights, configurations and tokenizer files into `folder`."""
    model = checkpoint.model
    block_size, room = model.config.block_size, max(model.config.vocab_size, tokenizer.size + 1)
    special = write_tokenizer(tokenizer, folder, block_size=block_size, vocab_size=room)
    weights, config = with_rows(model.state_dict(), model.config, special.rows)
    hf, tensors = write_architecture(weights, config)
    ids = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    files.write_json(folder / "config.json", hf | ids)
    files.write_json(folder / "generation_config.json", ids | describe_generation(config, special))
    write_safetensors(folder / "model.safetensors", tensors, format="pt")


def describe_generation(config: Config, special: SpecialTokens) -> dict[str, Any]:
    """Return how texts are drawn where nothing else is asked for."""
    settings: dict[str, Any] = {"max_new_tokens": max(1, config.block_size // 2)}
    if config.sample.temperature:
        settings |= {"do_sample": True, "temperature": config.sample.temperature}
    if special.pad not in (None, special.eos):  # which no text has
        settings["suppress_tokens"] = [special.pad]
    return settings


def with_rows(
    weights: Mapping[str, Tensor], config: Config, rows: int
) -> tuple[dict[str, Tensor], Config]:
    """Return weights and configuration for `rows` tokens: rows left over go, missing ones are 0."""
    fitted = {name: weight.detach().cpu().float() for name, weight in weights.items()}
    for name in ("wte.weight", "lm_head.weight"):
        if name in fitted:
            more = max(0, rows - len(fitted[name]))
            fitted[name] = F.pad(fitted[name][:rows], (0, 0, 0, more))
    return fitted, dataclasses.replace(config, vocab_size=rows)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """Write `tensors` as a safetensors file, the same bytes each time with one key of metadata.

    DataError where the library does not read from the file's content what was put in.
    """
    library = import_extra("safetensors.torch", extra="hf")
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    content = library.save(tensors, metadata)
    back = library.load(content)
    if not all(torch.equal(_bits(back[name]), _bits(x)) for name, x in tensors.items()):
        raise DataError(f"{path}: safetensors reads other weights than it wrote")
    files.write_bytes(path, content)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.uint8)  # equal where numbers are not: a NaN


def export_safetensors(checkpoint: Checkpoint, tokenizer: Tokenizer, file: str | Path) -> Export:
    """Write the weights by our own names, and what they belong to, as one safetensors file."""
    path, config = files.as_file(file), checkpoint.model.config
    described = {"config": {key: config[key] for key in MODEL_KEYS}}
    described |= {"tokenizer": tokenizer.to_dict(), "origin": checkpoint.origin}
    weights = {name: weight.cpu() for name, weight in checkpoint.model.state_dict().items()}
    write_safetensors(path, weights, nanogpt2=json.dumps(described, sort_keys=True))
    return Export("safetensors", "GPT of nanoGPT2", ["what was written reads back the same"], None)
