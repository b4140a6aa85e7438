"""The operators of training that a device may have faster versions of, as torch has them."""

import torch
import torch.nn.functional as F
from torch import Tensor


class Operators:
    """Torch's own; `kernels.CompiledOperators` has the same for a CPU."""

    def seed(self, seed: int) -> None:
        """Let the masks of dropout that follow be a function of `seed`."""
        torch.manual_seed(seed)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, dropout: float) -> Tensor:
        """Return causal attention (B, H, T, D) of `q` (B, H, T, D) over `k`, `v` (B, G, T, D).

        Query heads share G heads of keys and values (Ainslie et al. 2023).
        """
        return F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
        )

    def rotate(self, x: Tensor, angles: tuple[Tensor, Tensor], *, normed: bool) -> Tensor:
        """Return `x` (B, H, T, D), each pair of channels (i, i + D/2) turned by its angle.

        `angles` are cosines and sines, (1, T, D/2) or (B, 1, T, D/2). With `normed` each head is
        RMS-normed too (Henry et al. 2020; no weights: the scale is the softmax's own).
        """
        cos, sin = angles
        first, second = x.float().chunk(2, dim=-1)
        turned = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
        turned = turned.type_as(x)
        return F.rms_norm(turned, (x.shape[-1],)) if normed else turned

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return `x` (..., C) RMS-normed, times `weight` (C,) (Zhang & Sennrich 2019)."""
        return F.rms_norm(x, weight.shape, weight, eps)

    def gelu(self, x: Tensor) -> Tensor:
        """Return GPT-2's GELU, the tanh form, of `x`."""
        return F.gelu(x, approximate="tanh")

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Return `x` with a share `rate` of its elements dropped, the others scaled up."""
        return F.dropout(x, rate)

    def add(self, x: Tensor, branch: Tensor, *, dropout: float) -> Tensor:
        """Return `x` + dropout(`branch`)."""
        return x + (F.dropout(branch, dropout) if dropout else branch)


TORCH = Operators()
