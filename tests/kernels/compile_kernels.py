"""Compile for a GPU every Triton kernel that training and decoding launch, without having one.

Launches are replaced by compilations for what their arguments are; results are thus not computed.
Run as a program, without Triton's interpreter; prints the names of the kernels.
"""

import inspect
import os
from typing import Any

import torch
import triton
from every import some
from torch import Tensor, nn
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from nanogpt2.config.config import get_config
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.kernels.gpu import FusedDecoder, draw_fused
from nanogpt2.kernels import fp8
from nanogpt2.kernels import gpu as fused
from nanogpt2.model.gpt import GPT, RMSNorm

HOPPER = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.uint8: "*u8",
    float: "fp32",
    int: "i32",
}
compiled: dict[str, str] = {}


def compile_instead(
    kernel: Any, *args: Any, grid: Any = None, warmup: bool = False, **kw: Any
) -> None:
    """Compile `kernel` for these arguments."""
    options = {name: kw.pop(name) for name in ("num_warps", "num_stages") if name in kw}
    values = inspect.signature(kernel.fn).bind(*args, **kw).arguments
    fixed = {p.name for p in kernel.params if p.is_constexpr or values[p.name] is None}
    signature = {
        name: "constexpr"
        if name in fixed
        else TYPES[value.dtype if isinstance(value, Tensor) else type(value)]
        for name, value in values.items()
    }
    constants = {(number,): values[name] for number, name in enumerate(values) if name in fixed}
    key = f"{kernel.fn.__name__} {signature} {constants} {options}"
    if key not in compiled:
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        triton.compile(source, target=HOPPER, options=options)
        compiled[key] = kernel.fn.__name__


def compile_training() -> None:
    operators = fused.FusedOperators(torch.device("cpu"))
    norms = (nn.LayerNorm(384, bias=False), 0.0), (RMSNorm(384, eps=1e-5), 0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for norm, dropout in norms:
            x, branch = torch.zeros(2, 4, 384, requires_grad=True).unbind()
            total, y = operators.add_norm(x, branch.bfloat16(), norm, dropout=dropout)
            torch.autograd.backward(total.sum() + y.float().sum())
    tables = torch.zeros(2, 8, 384, requires_grad=True)
    operators.embed(torch.zeros(2, 8, dtype=torch.long), tables[0], tables[1])
    heads = torch.zeros(1, 6, 8, 64, dtype=torch.bfloat16, requires_grad=True)
    angles = torch.zeros(2, 1, 8, 32).unbind()
    turned = operators.rotate(heads, (angles[0], angles[1]), normed=True)
    torch.autograd.backward(turned.sum())
    for softcap in some((0.0, 15.0), 15.0):
        x, weight = torch.zeros(4, 16, requires_grad=True), torch.zeros(50304, 16)
        targets = torch.zeros(4, dtype=torch.long)
        loss = operators.cross_entropy(x.bfloat16(), weight, targets, softcap=softcap)
        torch.autograd.backward(loss)
    fp8.quantize_rows(torch.zeros(4, 768, dtype=torch.bfloat16))
    fp8.quantize_weight(torch.zeros(768, 2304))
    inner = torch.zeros(4, 3072, dtype=torch.bfloat16)
    for dy in (None, inner):
        fp8.gelu(inner, dy)


def compile_decoding() -> None:
    shape = {"n_layer": 1, "n_head": 4, "n_embd": 256, "block_size": 64}
    gpt2, modern = ("gpt2", torch.float32), ("modern", torch.bfloat16)
    cases = [(gpt2, 1), (modern, 1), (modern, 32)]
    for (architecture, dtype), rows in some(cases, (gpt2, 1), (modern, 32)):
        model = GPT(get_config({**shape, "architecture": architecture})).to(dtype)
        zeros = torch.zeros(rows, dtype=torch.long)
        FusedDecoder(model, rows=rows, n_tokens=None).step(zeros, zeros)
    draw_fused(torch.zeros(2, 300), torch.zeros(2, 1, dtype=torch.float64), Controls())


if __name__ == "__main__":
    JITFunction.run = compile_instead
    compile_training()
    compile_decoding()
    print(" ".join(sorted(set(compiled.values()))), flush=True)
    os._exit(0)  # Python takes half a second to take torch apart
