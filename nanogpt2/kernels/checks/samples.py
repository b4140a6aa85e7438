"""Random numbers of the widths, dtypes and variants of a run, on which operators are compared.

Every element of results and gradients counts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from nanogpt2.config.config import Config
from nanogpt2.device.device import autocast
from nanogpt2.model.gpt import make_norm
from nanogpt2.model.operators import TORCH, Operators

Pair: TypeAlias = tuple[Tensor, Tensor, float]
"""What was found, what is right, and how far they may differ, as a share of the largest."""

Run: TypeAlias = Callable[..., Sequence[Tensor]]
"""What is compared: called with operators and the inputs."""

FEW, MANY = 3, 96  # sequences
MANY_ROWS = 4096  # tokens; more than a GPU's programs take at once, so that each takes several
LENGTHS = 37, 48  # of a sequence: a multiple of no tile; and of 16, but of no larger one
TILE = 8192  # logits that a program of a GPU takes at once, at most


class Samples:
    """Draws numbers, and compares what operators and torch's make of them.

    Whether 16 divides a size is compiled into a GPU's kernel: there it is as in the run.
    """

    def __init__(
        self, config: Config, device: torch.device, dtype: torch.dtype, tolerance: float
    ) -> None:
        self.config = config = config.resolved()
        self.device, self.dtype, self.tolerance = device, dtype, tolerance
        self.generator = torch.Generator(device).manual_seed(1)
        self.autocast = autocast(device, dtype)
        on_gpu, V = device.type == "cuda", config.vocab_size
        self.T = LENGTHS[on_gpu and config.block_size % 16 == 0]
        many = on_gpu and config.batch_size * config.block_size > MANY_ROWS
        self.B = MANY if many else FEW
        self.C, self.V = config.n_embd, V if V <= 2 * TILE else TILE + V % TILE
        self.heads = config.n_head, config.n_kv_head or config.n_head
        self.head_size = config.n_embd // config.n_head

    def draw(self, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return numbers of size 0.5 to 1.5 times `scale`, which the run's dtype holds exactly."""
        size = 0.5 + torch.rand(shape, generator=self.generator, device=self.device)
        sign = 2 * self.draw_integers(2, *shape) - 1
        return (scale * size * sign).to(self.dtype).to(dtype).requires_grad_()

    def draw_cast(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Return such numbers in the run's dtype."""
        return self.draw(*shape, scale=scale, dtype=self.dtype)

    def draw_integers(self, end: int, *shape: int) -> Tensor:
        """Return integers from 0 to `end` - 1."""
        return torch.randint(end, shape, generator=self.generator, device=self.device)

    def draw_layer(self, inputs: int, outputs: int) -> nn.Linear:
        """Return a layer of the run's kind, whose results have a size of about one."""
        layer = nn.Linear(inputs, outputs, bias=bool(self.config.bias), device=self.device)
        layer.weight.data = self.draw(outputs, inputs, scale=inputs**-0.5).detach()
        if layer.bias is not None:
            layer.bias.data = self.draw(outputs).detach()
        return layer

    def draw_norm(self) -> nn.Module:
        """Return a norm of the run's kind, with weights of its own."""
        norm = make_norm(self.config).to(self.device)
        for weight in norm.parameters():
            weight.data = self.draw(self.C).detach()
        return norm

    def draw_heads(self, scale: float) -> Tensor:
        """Return queries, keys and values as the model has them, in one: (B, T, H + 2G, D)."""
        H, G = self.heads
        return self.draw_cast(self.B, self.T, H + 2 * G, self.head_size, scale=scale)

    def split_heads(self, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of `draw_heads`, each (B, heads, T, D)."""
        H, G = self.heads
        q, k, v = (x.transpose(1, 2) for x in torch.split(packed, [H, G, G], dim=2))
        return q, k, v

    def compare(
        self,
        operators: Operators,
        run: Run,
        inputs: Sequence[Tensor],
        weights: Iterable[Tensor] = (),
        *,
        expected: Run | None = None,
        results: float | None = None,
    ) -> Iterator[Pair]:
        """Yield what `run` makes of `inputs` with `operators`, and with torch's in float32.

        The gradients of inputs and `weights` follow. Where `run` draws a mask, `expected` is run
        with torch's operators instead. `results` is a tolerance of their own.
        """
        weights = list(weights)
        with operators.cast_weights(weights, self.dtype), self.autocast():
            found = run(operators, *inputs)
        wide = [x.detach().float().requires_grad_() for x in inputs]
        right = (expected or run)(TORCH, *wide)
        grads = [self.draw(*y.shape).detach() for y in right]
        found_grads = gradients(found, grads, [*inputs, *weights])
        right_grads = gradients(right, grads, [*wide, *weights])
        tolerances = [self.tolerance if results is None else results] * len(right)
        tolerances += [self.tolerance] * len(right_grads)
        yield from zip([*found, *found_grads], [*right, *right_grads], tolerances, strict=True)


def gradients(
    outputs: Sequence[Tensor], grads: Sequence[Tensor], inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return the gradients of `inputs`, given those of `outputs`.

    Through a sum, for torch imports its symbolic shapes, in a second, where it is given gradients.
    """
    total = torch.stack([(y.float() * dy).sum() for y, dy in zip(outputs, grads, strict=True)])
    return torch.autograd.grad(total.sum(), inputs)
