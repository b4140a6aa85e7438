"""The operators of training that a device may have faster versions of, as torch has them."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.device.torch_private import Movable
from nanogpt2.model.inputs import outside

# Of the norm of queries and keys, in every precision: small ones stay small, so that a head may
# attend softly. It is F.rms_norm's for bfloat16, in which it was found to help.
QK_EPS = 2.0**-7


class Operators:
    """Torch's own; `kernels.cpu` has the same for a CPU, and `kernels.gpu` for a GPU."""

    def seed(self, seed: int) -> None:
        """Let the masks of dropout that follow be a function of `seed`."""
        if torch.accelerator.is_available():
            torch.manual_seed(seed)
        else:  # it would keep a formatted stack for each kind of GPU that is not there, 2 ms a step
            torch.default_generator.manual_seed(seed)

    def embed(self, idx: Tensor, tokens: Tensor, positions: Tensor | None) -> Tensor:
        """Return rows `idx` (B, T) of `tokens` (V, C), plus `positions` (T, C) if they are given.

        Positions may also be of each row of the batch, (B, T, C).
        """
        try:
            x = F.embedding(idx, tokens)
        except IndexError as error:  # on a CPU; elsewhere a look at the numbers would cost a wait
            raise outside("idx", idx, f"from 0 to {len(tokens) - 1}") from error
        return x if positions is None else x + positions

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, dropout: float) -> Tensor:
        """Return causal attention (B, H, T, D) of `q` (B, H, T, D) over `k`, `v` (B, G, T, D).

        Query heads share G heads of keys and values (Ainslie et al. 2023).
        """
        return F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
        )

    def cast_weights(
        self, weights: Iterable[Tensor], dtype: torch.dtype
    ) -> AbstractContextManager[None]:
        """Let what is computed within find copies of `weights` in `dtype`, made all at once."""
        return nullcontext()

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """Return what `layer` makes of `x` (..., C): (..., its out_features)."""
        y: Tensor = layer(x)
        return y

    def split_linear(self, x: Tensor, layer: nn.Linear, widths: list[int]) -> tuple[Tensor, ...]:
        """Return what `layer` makes of `x` (..., C), in parts (..., width) of its channels."""
        return torch.split(self.linear(x, layer), widths, dim=-1)

    def rotate(self, x: Tensor, angles: tuple[Tensor, Tensor], *, normed: bool) -> Tensor:
        """Return `x` (B, H, T, D), each pair of channels (i, i + D/2) turned by its angle.

        `angles` are cosines and sines, (1, T, D/2) or (B, 1, T, D/2). With `normed` each head is
        RMS-normed too (Henry et al. 2020; no weights: the scale is the softmax's own).
        """
        cos, sin = angles
        first, second = x.float().chunk(2, dim=-1)
        turned = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
        turned = turned.type_as(x)
        return norm_heads(turned) if normed else turned

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return `x` (..., C) RMS-normed, times `weight` (C,) (Zhang & Sennrich 2019)."""
        return F.rms_norm(x, weight.shape, weight, eps)

    def mix_tokens(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return `x` (B, T, C) plus, over the k taps of `weight` (k, 1, C), x[t - j] * weight[j].

        A causal depthwise convolution: zeros come before the first token.
        """
        (taps, _, _), T = weight.shape, x.shape[1]
        padded, y = F.pad(x, (0, 0, taps - 1, 0)), x
        for back, factors in enumerate(weight.to(x.dtype)):
            first = taps - 1 - back
            y = torch.addcmul(y, padded[:, first : first + T], factors)
        return y

    def gelu(self, x: Tensor) -> Tensor:
        """Return GPT-2's GELU, the tanh form, of `x`."""
        return F.gelu(x, approximate="tanh")

    def gelu_mlp(self, x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
        """Return `second` of GELU of `first` of `x` (..., C)."""
        return self.linear(self.gelu(self.linear(x, first)), second)

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Return `x` with a share `rate` of its elements dropped, the others scaled up."""
        return F.dropout(x, rate)

    def add(self, x: Tensor, branch: Tensor, *, dropout: float) -> Tensor:
        """Return `x` + dropout(`branch`)."""
        return x + (F.dropout(branch, dropout) if dropout else branch)

    def add_norm(
        self, x: Tensor, branch: Tensor | None, norm: nn.Module, *, dropout: float
    ) -> tuple[Tensor, Tensor]:
        """Return the sum `x` + dropout(`branch`), where there is one, and `norm` of the sum."""
        if branch is not None:
            x = self.add(x, branch, dropout=dropout)
        return x, norm(x)

    def cross_entropy(
        self, x: Tensor, weight: Tensor, targets: Tensor, *, softcap: float
    ) -> Tensor:
        """Return the mean loss in nats of `x` (B, T, C) under the head `weight` (V, C).

        A target of -1 in `targets` (B, T) does not count.
        """
        return mean_loss(cap_logits(F.linear(x, weight), softcap), targets)


def working_dtype(x: Tensor) -> torch.dtype:
    """Return what matrix products of `x` compute in: autocast's dtype, or its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def rows_of(x: Tensor) -> Tensor:
    """Return `x` (..., C) as (rows, C), in what its products compute in."""
    return x.to(working_dtype(x)).flatten(0, -2)


def with_rows(x: Tensor) -> Tensor:
    """Return `x`, copied where its last dimension is not contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()


def norm_heads(x: Tensor) -> Tensor:
    """Return queries or keys (..., D), each RMS-normed over its channels."""
    return F.rms_norm(x, (x.shape[-1],), eps=QK_EPS)


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss in nats of `targets` (B, T), -1 left out, by `logits` (B, T, V)."""
    rows = logits.flatten(0, -2).float()
    with checked(targets, rows.shape[1]):
        return F.cross_entropy(rows, targets.flatten(), ignore_index=-1)


def sum_losses(shares: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of losses in nats of `targets` (N,), -1 left out, by `shares` (N, V).

    These are logarithms of probabilities.
    """
    with checked(targets, shares.shape[1]):
        return F.nll_loss(shares, targets, ignore_index=-1, reduction="sum")


@contextmanager
def checked(targets: Tensor, size: int) -> Iterator[None]:
    """Say of `targets` that are none of `size` tokens what is allowed, on a CPU."""
    try:
        yield
    except IndexError as error:
        allowed = f"from 0 to {size - 1}, or -1, which does not count"
        raise outside("targets", targets, allowed) from error


def cap_logits(logits: Tensor, softcap: float) -> Tensor:
    """Return `logits` bent to lie between -softcap and softcap; 0 leaves them."""
    return softcap * torch.tanh(logits / softcap) if softcap else logits


TORCH = Operators()


class Computes(Movable):
    """A module that computes with operators, which `GPT.use` exchanges.

    Those of one kind of device go where it is moved to another.
    """

    operators = TORCH

    def moved(self) -> None:
        self.operators = TORCH
