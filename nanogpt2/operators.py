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
