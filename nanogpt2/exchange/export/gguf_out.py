"""A GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), as llama.cpp opens it.

Characters become byte pairs there too: llama.cpp has no tokenizer of characters.
"""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import CheckpointError, ConfigError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.config.config import Config
from nanogpt2.config.yaml12 import show
from nanogpt2.exchange.export.record import Export
from nanogpt2.exchange.incoming.architectures import ARCHITECTURES, Knobs, write_architecture
from nanogpt2.exchange.incoming.configs import ROPE_THETA, inner_width
from nanogpt2.exchange.incoming.layouts import NORM_EPS
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.tokens.bpe.bpe import BYTE_CHARACTERS, END_OF_TEXT, BytePairTokenizer
from nanogpt2.tokens.tokenizer import CharTokenizer, Tokenizer

# Of those of transformers which llama.cpp has, and with which knobs it computes the same.
KNOBS: dict[str, Knobs] = {
    "gpt2": {"mlp": ("gelu",)},
    "qwen3": {},
    "llama": {"bias": (False,)},
    "arcee": {"mlp": ("relu2",), "bias": (False,)},
}
TURNED_IN_PAIRS = ("llama", "arcee")  # rotary positions turn channels (2i, 2i + 1) there
FLOAT32 = 0  # the file type of weights as they are
# GPT-2's words by the name under which llama.cpp takes no space before 's from whole texts, as it
# does under gpt-2; it knows it since its build 5050.
WORDS = "trillion"
NOT_UTF8 = f"{BYTE_CHARACTERS[0xFF]} {BYTE_CHARACTERS[0xFF]}"  # a merge that no text has
PAST_BLOCK = "past block_size it drops what came first, as whoever runs it says; ours slides"


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as llama.cpp has it: tokens in bytes' characters, and the one that ends texts."""

    tokens: list[str]
    merges: list[str]
    control: list[str]  # tokens that no text has
    end: int


def export_gguf(checkpoint: Checkpoint, tokenizer: Tokenizer, file: str | Path) -> Export:
    """Write the model and its tokenizer to `file`, read it back and compare every tensor.

    ConfigError names the knobs that llama.cpp has no equal for; DataError where `file` cannot be
    written, CheckpointError where it does not hold what was written. It is as it was then.
    """
    path, model = files.as_file(file), checkpoint.model
    gguf = import_extra("gguf", extra="gguf")
    config = model.config.resolved()
    name = architecture_in_llama(config)
    vocabulary = find_vocabulary(tokenizer)
    weights = with_end(model.state_dict(), tokenizer.size, len(vocabulary.tokens))
    config = dataclasses.replace(config, vocab_size=len(vocabulary.tokens))
    tensors = name_tensors(gguf, name, weights, config)
    files.check_writable(path)
    with (
        files.write_errors(path),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as aside,
    ):
        new = Path(aside, "new.gguf")
        write_gguf(gguf, new, name, tensors, config, vocabulary)
        check_gguf(gguf, new, tensors)
        new.replace(path)
    return Export(
        "gguf", name, [f"{len(tensors)} tensors read back are the same", PAST_BLOCK], None
    )


def architecture_in_llama(config: Config) -> str:
    """Return the architecture of llama.cpp that computes the resolved `config`.

    ConfigError names the knobs that have no equal in the nearest one, a line for each.
    """
    misfits = {name: _misfits(config, name) for name in KNOBS}
    nearest = min(misfits, key=lambda name: len(misfits[name]))
    if misfits[nearest]:
        raise ConfigError("\n".join(misfits[nearest]))
    return nearest


def _misfits(config: Config, name: str) -> list[str]:
    knobs = {**ARCHITECTURES[name].knobs, **KNOBS[name]}
    if name == "gpt2":
        knobs["n_kv_head"] = (config.n_head,)
    return [
        f"{key}: found {show(config[key])}; allowed: {', '.join(map(show, allowed))} in {name}, the"
        " nearest architecture of llama.cpp"
        for key, allowed in knobs.items()
        if config[key] not in allowed
    ]


def find_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Return `tokenizer` as llama.cpp has it.

    It must have a token that ends texts: it takes number 11 for it where none is named.
    """
    merges: list[str] = []
    if isinstance(tokenizer, BytePairTokenizer):
        tokens, merges = tokenizer.vocabulary, tokenizer.merges
        if END_OF_TEXT in tokenizer.special:
            end = tokens.index(END_OF_TEXT)
            return Vocabulary(tokens, merges or [NOT_UTF8], tokenizer.special, end)
        control = [*tokenizer.special, END_OF_TEXT]
    elif isinstance(tokenizer, CharTokenizer):
        spelt = [_spell(tokenizer.token_bytes(token)) for token in range(tokenizer.size)]
        tokens, control = spelt, [END_OF_TEXT]
        # a character's bytes are merged from the left; what comes between need be no token
        merges = list(dict.fromkeys(f"{t[:at]} {t[at]}" for t in spelt for at in range(1, len(t))))
    else:  # no text has this byte
        tokens, control = [*BYTE_CHARACTERS[:0xFF]], [END_OF_TEXT]
    merges = merges or [NOT_UTF8]  # it reads no file without any
    return Vocabulary([*tokens, END_OF_TEXT], merges, control, len(tokens))


def _spell(content: bytes) -> str:
    return "".join(BYTE_CHARACTERS[byte] for byte in content)


def with_end(weights: Mapping[str, Tensor], size: int, rows: int) -> dict[str, Tensor]:
    """Return `weights` with embeddings of `rows` tokens, of which the model knows the first `size`.

    A row more is the mean of all: its logit is their mean, which is never the largest.
    """
    fitted = {name: weight.detach().cpu().float() for name, weight in weights.items()}
    for name in ("wte.weight", "lm_head.weight"):
        if name in fitted:
            known = fitted[name][:size]
            mean = known.double().mean(0, keepdim=True).float()
            fitted[name] = torch.cat([known, mean.expand(rows - len(known), -1)])
    return fitted


def name_tensors(
    gguf: Any, name: str, weights: Mapping[str, Tensor], config: Config
) -> dict[str, Tensor]:
    """Return the tensors by GGUF's names, in its layout, of our `weights`."""
    _, theirs = write_architecture(weights, config)
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    names = gguf.get_tensor_name_map(arch, config.n_layer)
    tensors = {}
    for their_name, tensor in theirs.items():
        if name == "gpt2" and tensor.dim() == 2 and their_name.split(".")[-2].startswith("c_"):
            tensor = tensor.T  # only Conv1D keeps (in, out)
        if name in TURNED_IN_PAIRS:
            for module, heads in (("q_proj", config.n_head), ("k_proj", config.n_kv_head)):
                if module in their_name:
                    tensor = interleave(tensor, int(heads or config.n_head))
        named = names.get_name(their_name, try_suffixes=(".weight", ".bias"))
        tensors[named] = tensor.contiguous()
    return tensors


def interleave(rows: Tensor, heads: int) -> Tensor:
    """Return `rows` (heads * D, C) with channels i and i + D/2 of each head beside each other."""
    return rows.view(heads, 2, -1, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def write_gguf(
    gguf: Any,
    path: Path,
    name: str,
    tensors: Mapping[str, Tensor],
    config: Config,
    vocabulary: Vocabulary,
) -> None:
    """Write the file: what the model is, its tokenizer, and its tensors."""
    out = gguf.GGUFWriter(path, name)
    out.add_name("nanoGPT2")
    out.add_file_type(FLOAT32)
    out.add_context_length(config.block_size)
    out.add_embedding_length(config.n_embd)
    out.add_block_count(config.n_layer)
    out.add_feed_forward_length(inner_width(config.n_embd, str(config.mlp)))
    out.add_head_count(config.n_head)
    if name == "gpt2":
        out.add_layer_norm_eps(NORM_EPS)
    else:
        head_size = config.n_embd // config.n_head
        out.add_head_count_kv(config.n_kv_head)
        out.add_layer_norm_rms_eps(NORM_EPS)
        out.add_key_length(head_size)
        out.add_value_length(head_size)
        out.add_rope_dimension_count(head_size)
        out.add_rope_freq_base(ROPE_THETA)
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    hidden = set(vocabulary.control)
    out.add_vocab_size(len(vocabulary.tokens))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(WORDS)
    out.add_token_list(vocabulary.tokens)
    out.add_token_types([control if token in hidden else normal for token in vocabulary.tokens])
    out.add_token_merges(vocabulary.merges)
    out.add_eos_token_id(vocabulary.end)
    out.add_bos_token_id(vocabulary.end)
    out.add_add_bos_token(False)
    for key, tensor in tensors.items():
        out.add_tensor(key, tensor.numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def check_gguf(gguf: Any, path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where gguf's reader finds other tensors in `path`."""
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, tensor in tensors.items():
        if name not in found or not torch.equal(torch.from_numpy(found[name].data.copy()), tensor):
            raise CheckpointError(f"{path}: {name}: read back otherwise than it was written")
    if more := sorted(found.keys() - tensors.keys()):
        raise CheckpointError(f"{path}: {more[0]}: was not written")
