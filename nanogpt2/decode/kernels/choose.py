"""Which decoder and which draw are the quickest for a model where it is, and right.

Compiled ones are compared with torch's once for each shape of model. What is wrong is named on
stderr, and torch serves.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nanogpt2.base.screen import screen
from nanogpt2.base.system.errors import DeviceError
from nanogpt2.decode.decoder import Decoder, MakeDecoder, ModuleDecoder
from nanogpt2.decode.draw import Drawn, draw_tokens, note_tokens
from nanogpt2.decode.kernels.cpu import CompiledDecoder, CompiledWeights, draw_compiled
from nanogpt2.decode.kernels.cpu_library import SOURCE, load
from nanogpt2.decode.kernels.trials import try_compiled, try_draw, try_note
from nanogpt2.device.compiler import name_of
from nanogpt2.device.device import is_rocm
from nanogpt2.kernels.checks.check import find_fault
from nanogpt2.model.gpt import GPT, MLP, Attention, Block, RMSNorm

Shape: TypeAlias = tuple[tuple[str, Any], ...]
"""The keys of a configuration on which compiled code depends."""

CPU = torch.device("cpu")
VARIANT = (
    *("n_embd", "n_head", "n_kv_head", "positions", "norm", "qk_norm", "mlp"),
    *("mlp_conv", "tied_head", "bias", "logit_softcap"),
)
MOST = {"vocab_size": 8192, "block_size": 160}  # more of them take no other kernels of a GPU
MOST_ROWS = 80  # more than kernels multiply, so that of more torch's products are tried
SLOWLY = "decoding goes on with torch's operators, more slowly"
KNOWN = {GPT, Block, Attention, MLP, RMSNorm, nn.LayerNorm, nn.Linear, nn.Embedding, nn.ModuleList}


def prepare(model: GPT, *, n_tokens: int | None = None, int8: bool = False) -> MakeDecoder:
    """Return what makes the quickest decoders for `model` where it is, for any number of rows.

    It may hold a copy of the weights, as they are now. `n_tokens` keeps to the logits of the
    tokens below it. With `int8` that copy has 8 bits a weight; DeviceError where only torch's
    operators decode.
    """
    make: partial[Any] = partial(ModuleDecoder, model, n_tokens=n_tokens)
    with screen.phase("checking kernels"):
        if knows_modules(model):
            if takes_compiled(model, int8=int8):
                weights = CompiledWeights(model, n_tokens=n_tokens, int8=int8)
                make = partial(CompiledDecoder, weights)
            elif runs_kernels(model.wte.weight):
                make = partial(choose_decoder, model, n_tokens=n_tokens)
    if int8 and make.func is not CompiledDecoder:
        raise DeviceError(
            f"int8: found {model.wte.weight.dtype} weights on {model.wte.weight.device}; allowed:"
            f" float32 on a CPU where {name_of(SOURCE)} compiles and is right"
        )
    screen.detail(f"decoder: {getattr(make.func, '__name__', '')}")
    return make


def choose_draw(weight: Tensor) -> Callable[..., Tensor]:
    """Return the quickest `draw_tokens` where `weight` (V, C) is."""
    if runs_kernels(weight) and draw_works(weight.device, len(weight)):
        from nanogpt2.decode.kernels.gpu import draw_fused

        return draw_fused
    if weight.device == CPU and compiles() and compiled_draw_works():
        return draw_compiled
    return draw_tokens


def choose_note(weight: Tensor) -> Callable[[Tensor, Drawn], None]:
    """Return the quickest `note_tokens` where `weight` (V, C) is."""
    if runs_kernels(weight) and note_works(weight.device):
        from nanogpt2.decode.kernels.gpu import note_fused

        return note_fused
    return note_tokens


# --- On a CPU ---


def takes_compiled(model: GPT, *, int8: bool = False) -> bool:
    """Return whether cpu.c decodes `model`, and computes what its modules do, in 8 bits if so."""
    weight = model.wte.weight
    if weight.device != CPU or weight.dtype != torch.float32:
        return False
    heads = model.config.n_kv_head or model.config.n_head
    sizes = {  # of two heads that are read
        "n_head": 2 * model.config.n_head // heads,
        "n_kv_head": 2,
        "n_embd": 2 * model.config.n_embd // heads,
    }
    shape = tuple({**dict(variant_of(model)), **sizes}.items())
    return compiles() and compiled_works(shape, int8=int8)


@cache
def compiles() -> bool:
    """Return whether cpu.c compiles here."""
    try:
        load()
    except DeviceError as error:
        say(f"note: {error}: {SLOWLY}")
        return False
    return True


@cache
@torch.no_grad()
def compiled_works(shape: Shape, *, int8: bool = False) -> bool:
    """Return whether cpu.c computes the logits of a small model of this shape."""
    return is_right(name_of(SOURCE), find_fault(lambda: try_compiled(dict(shape), int8=int8)))


@cache
def compiled_draw_works() -> bool:
    """Return whether cpu.c draws what `draw_tokens` does."""
    return is_right("draw", find_fault(lambda: try_draw(draw_compiled, CPU, 1000)))


# --- On a GPU ---


def runs_kernels(weight: Tensor) -> bool:
    """Return whether the kernels of gpu.py may run where `weight` is, with its dtype."""
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    return weight.is_cuda and weight.dtype in dtypes and kernels_work(weight.device)


@cache
def kernels_work(device: torch.device) -> bool:
    """Return whether Triton is there, and compiles for `device`; not for AMD's GPUs."""
    if is_rocm():
        say(f"note: no kernels for AMD's GPUs: {SLOWLY}")
        return False
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        from nanogpt2.decode.kernels import gpu  # noqa: F401  # slow, and Triton is not everywhere
    except ImportError:
        say(f"note: Triton is not installed: {SLOWLY}")
        return False
    return True


def choose_decoder(model: GPT, *, rows: int, n_tokens: int | None) -> Decoder:
    """Return a decoder of `rows` samples: with kernels, or with the model's modules."""
    weight, shape = model.wte.weight, shape_of(model)
    if not decoder_works(shape, weight.device, weight.dtype, at_most(MOST_ROWS, rows)):
        return ModuleDecoder(model, rows=rows, n_tokens=n_tokens)
    from nanogpt2.decode.kernels.gpu import FusedDecoder

    return FusedDecoder(model, rows=rows, n_tokens=n_tokens)


def shape_of(model: GPT) -> Shape:
    """Return the shape of a small model that takes the kernels of `model`."""
    sizes = ((name, at_most(most, getattr(model.config, name))) for name, most in MOST.items())
    return ("n_layer", 1), *variant_of(model), *sizes


def at_most(most: int, size: int) -> int:
    """Return `size`, or about `most`: that 16 divides a size is compiled into a kernel."""
    return min(size, most + size % 16)


@cache
def draw_works(device: torch.device, n_logits: int) -> bool:
    """Return whether the draw's kernels draw from so many logits what `draw_tokens` does."""
    from nanogpt2.decode.kernels.gpu import draw_fused

    return is_right("draw", find_fault(lambda: try_draw(draw_fused, device, n_logits)))


@cache
def note_works(device: torch.device) -> bool:
    """Return whether the kernel that takes note of tokens does what `note_tokens` does."""
    from nanogpt2.decode.kernels.gpu import note_fused

    return is_right("note", find_fault(lambda: try_note(note_fused, device)))


@cache
@torch.no_grad()
def decoder_works(shape: Shape, device: torch.device, dtype: torch.dtype, rows: int) -> bool:
    """Return whether each kernel of a step computes what the modules of such a model do."""
    from nanogpt2.decode.kernels.gpu_trials import TRIALS, Trial

    trial = Trial(dict(shape), device, dtype, rows)
    faults = ((name, find_fault(lambda: attempt(trial))) for name, attempt in TRIALS.items())  # noqa: B023
    return all(is_right(name, fault) for name, fault in faults)


# --- On both ---


def knows_modules(model: GPT) -> bool:
    """Return whether each module of `model` is one that compiled code knows; say it if not."""
    unknown = sorted(
        {type(module).__name__ for module in model.modules() if type(module) not in KNOWN}
    )
    if unknown:
        say(f"note: {', '.join(unknown)}: known to no compiled code: {SLOWLY}")
    return not unknown


def variant_of(model: GPT) -> Shape:
    """Return the keys that make a variant of the architecture, and the sizes of its layers."""
    return tuple((name, getattr(model.config, name)) for name in VARIANT)


def is_right(name: str, fault: str | None) -> bool:
    """Return whether there is no fault; say it where there is."""
    if fault is not None:
        say(f"note: {name}: {fault}: {SLOWLY}")
    return fault is None


say = cache(screen.say)  # once in a process
