"""GPT-2 in one file: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".

Learned positions, pre-norm blocks, tanh GELU, and a head tied to the token embedding. Weights have
GPT-2's names and nn.Linear's layout (transposed against GPT-2's Conv1D). Each part has variants,
which the keys of the configuration named after it choose; `architecture` sets them together.
B: batch, T: tokens, C: n_embd channels, H: heads, D: C / n_head, V: vocab_size.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config.config import Config, make_config
from nanogpt2.model.inputs import as_batch, as_targets
from nanogpt2.model.operators import Computes, Operators, cap_logits, mean_loss, norm_heads

Angles: TypeAlias = tuple[Tensor, Tensor]
"""Cosines and sines of positions."""

WRAPPERS = ("_orig_mod", "module")  # where torch.compile, and DataParallel and DDP keep a model


def make_norm(config: Config) -> nn.Module:
    """Return layer norm (Ba et al. 2016) or RMS norm (Zhang & Sennrich 2019) over C channels."""
    if config.norm == "rms":
        return RMSNorm(config.n_embd, eps=1e-5)
    return nn.LayerNorm(config.n_embd, bias=bool(config.bias))


def rope_angles(positions: Tensor, size: int) -> Angles:
    """Return cosines and sines, each (..., 1, T, size / 2), at `positions` (..., T).

    RoPE, rotary position embedding: Su et al. 2021, "RoFormer".
    """
    angles = positions[..., None, :, None] * rope_frequencies(size, positions.device)
    return angles.cos(), angles.sin()


def rope_frequencies(size: int, device: torch.device) -> Tensor:
    """Return what a step of position adds to each pair's angle, in radians: (size / 2,)."""
    return 10_000.0 ** (-torch.arange(0, size, 2, device=device) / size)


class RMSNorm(Computes, nn.RMSNorm):
    """Torch's, computed by the model's operators."""

    def forward(self, x: Tensor) -> Tensor:
        return self.operators.rms_norm(x, self.weight, float(self.eps or 0))


class Criterion(Protocol):
    """What `Operators.cross_entropy` is: a loss of hidden states (B, T, C) under a head (V, C)."""

    def __call__(self, x: Tensor, weight: Tensor, targets: Tensor, *, softcap: float) -> Tensor: ...


class LayerCache(Protocol):
    """What one layer has seen of each token; `nanogpt2.decode.decoder` has the real one."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep `k` and `v` (B, heads, T, D); return what `q` reads of all kept: as q's shape."""

    def mix_tokens(self, x: Tensor, weight: Tensor) -> Tensor:
        """Keep `x` (B, T, C); return what the operator does of it and what was kept before."""


class Cache(Protocol):
    """What the model asks of a key-value cache."""

    @property
    def layers(self) -> Sequence[LayerCache]:
        """The cache of each layer."""

    @property
    def positions(self) -> Tensor:
        """Positions (B, T) of the tokens being read."""


class Attention(Computes):
    """Causal self-attention with n_head queries and n_kv_head keys and values."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.n_kv_head = config.n_kv_head or config.n_head
        self.head_size = config.n_embd // config.n_head
        self.qk_norm = bool(config.qk_norm)
        width = (self.n_head + 2 * self.n_kv_head) * self.head_size
        self.c_attn = nn.Linear(config.n_embd, width, bias=bool(config.bias))
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=bool(config.bias))
        self.dropout = config.attention_dropout or 0.0

    def forward(
        self, x: Tensor, rope: Angles | None = None, cache: LayerCache | None = None
    ) -> Tensor:
        """Return (B, T, C) for `x` (B, T, C); `rope` are the angles of its positions."""
        y = self.mix(*self.heads(x), rope, cache)
        return self.operators.linear(y, self.c_proj)

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, rope: Angles | None, cache: LayerCache | None
    ) -> Tensor:
        """Return what queries (B, n_head, T, D) read of keys and values: (B, T, C)."""
        if rope is not None:
            q, k = (self.operators.rotate(x, rope, normed=self.qk_norm) for x in (q, k))
        elif self.qk_norm:  # Henry et al. 2020; no weights: the scale is the softmax's own
            q, k = norm_heads(q), norm_heads(k)
        if cache is None:
            dropout = self.dropout if self.training else 0.0
            y = self.operators.attention(q, k, v, dropout=dropout)
        else:
            y = cache.attend(q, k, v)
        return y.transpose(1, 2).flatten(2)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, n_head, T, D), keys and values (B, n_kv_head, T, D)."""
        B, T, _ = x.shape
        counts = (self.n_head, self.n_kv_head, self.n_kv_head)
        widths = [count * self.head_size for count in counts]
        parts = self.operators.split_linear(x, self.c_attn, widths)
        q, k, v = (
            part.view(B, T, count, self.head_size).transpose(1, 2)
            for part, count in zip(parts, counts, strict=True)
        )
        return q, k, v


class MLP(Computes):
    """Two linear layers, four times as wide between them, and a nonlinearity.

    gelu: GPT-2's tanh form. relu2: squared ReLU (So et al. 2021). swiglu: gated, two thirds as
    wide for as many weights (Shazeer 2020).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.kind = config.mlp
        bias, width = bool(config.bias), 4 * config.n_embd
        if self.kind == "swiglu":
            width = 8 * round(width * 2 / 3 / 8)
        gates = 2 if self.kind == "swiglu" else 1
        self.c_fc = nn.Linear(config.n_embd, gates * width, bias=bias)
        self.c_proj = nn.Linear(width, config.n_embd, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "gelu":
            return self.operators.gelu_mlp(x, self.c_fc, self.c_proj)
        x = self.operators.linear(x, self.c_fc)
        if self.kind == "relu2":
            x = F.relu(x).square()
        else:
            gate, x = x.chunk(2, dim=-1)
            x = F.silu(gate) * x
        return self.operators.linear(x, self.c_proj)


class Block(Computes):
    """x + mlp(norm(x)) of x + attention(norm(x)), on the residual stream x (B, T, C).

    Each branch reads a normed copy of the stream and adds to it (pre-norm: Xiong et al. 2020). The
    second sum is handed on unmade, as (x, branch): the norm that comes next, the following block's
    first or the model's last, reads that very sum, and a device does both in one pass over memory.
    mlp_conv mixes the last tokens into what the MLP reads, at first not at all: Primer (So et al.
    2021) has such a convolution after each projection, Canon layers (Allen-Zhu 2025) as it is here.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ln_1 = make_norm(config)
        self.attn = Attention(config)
        self.ln_2 = make_norm(config)
        self.mlp = MLP(config)
        self.mlp_conv: nn.Parameter | None = None
        if config.mlp_conv:  # three dimensions: Muon takes matrices, and AdamW this one, with decay
            self.mlp_conv = nn.Parameter(torch.zeros(config.mlp_conv, 1, config.n_embd))
        self.dropout = config.dropout

    def forward(
        self, x: Tensor, branch: Tensor | None, rope: Angles | None = None,
        cache: LayerCache | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the stream, and the branch still to be added to it: (B, T, C) each, as they came.

        The first block has no `branch`; `rope` are the angles of the positions.
        """
        dropout = self.dropout if self.training else 0.0
        x, normed = self.operators.add_norm(x, branch, self.ln_1, dropout=dropout)
        branch = self.attn(normed, rope, cache)
        x, normed = self.operators.add_norm(x, branch, self.ln_2, dropout=dropout)
        if self.mlp_conv is not None:
            normed = (cache or self.operators).mix_tokens(normed, self.mlp_conv)
        return x, self.mlp(normed)


class GPT(Computes):
    """A language model; `config` is a Config, or a mapping whose absent keys take their defaults.

    The initial weights are a function of the configuration and its seed. ConfigError where the
    configuration is not valid.
    """

    @torch.random.fork_rng(devices=[])  # torch's modules draw weights of their own first
    def __init__(self, config: Config | Mapping[str, Any]) -> None:
        super().__init__()
        if not isinstance(config, Config):
            config = make_config(config, name="configuration")
        self.config = config = config.resolved()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.positions == "learned":
            self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = make_norm(config)
        if not config.tied_head:  # tied: Press & Wolf 2017
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if not self.wte.weight.is_meta:
            self.init_weights(torch.Generator().manual_seed(config.seed))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw matrices and embeddings from N(0, 0.02), as GPT-2 does; biases are 0.

        With zero_init each block starts as the identity, and an untied head as a uniform guess.
        """
        for name, parameter in self.named_parameters():
            if self.config.zero_init and name.endswith(("c_proj.weight", "lm_head.weight")):
                parameter.zero_()
            elif name.endswith("c_proj.weight"):
                # 2 * n_layer branches add up in the residual stream: GPT-2 paper, section 2.3
                std = 0.02 / math.sqrt(2 * self.config.n_layer)
                parameter.normal_(0.0, std, generator=generator)
            elif parameter.dim() == 2:
                parameter.normal_(0.0, 0.02, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        # torch.save has written plain data
        self.config = make_config(self.config, name="configuration")  # type: ignore[arg-type]

    def use(self, operators: Operators) -> None:
        """Let every part of the model compute with `operators`."""
        for module in self.modules():
            if isinstance(module, Computes):
                module.operators = operators

    @overload
    def forward(self, idx: Tensor) -> Tensor: ...

    @overload
    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]: ...

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (B, T, V) for tokens `idx` (B, T); with `targets`, (logits, loss)."""
        logits = self.head(self.hidden(idx))
        return logits if targets is None else (logits, mean_loss(logits, as_targets(targets, idx)))

    def loss(self, idx: Tensor, targets: Tensor, criterion: Criterion | None = None) -> Tensor:
        """Return the mean cross-entropy in nats per token; a target of -1 does not count.

        It is what training computes: `forward`'s loss, in less time and memory, since a device
        may do without the logits as a whole. A `criterion` is computed in its place.
        """
        cap = float(self.config.logit_softcap or 0)
        hidden, targets = self.hidden(idx), as_targets(targets, idx)
        criterion = criterion or self.operators.cross_entropy
        return criterion(hidden, self.head_weight, targets, softcap=cap)

    def hidden(self, idx: Tensor, cache: Cache | None = None) -> Tensor:
        """Return the final hidden states (B, T, C); DataError where T exceeds block_size.

        With a `cache`, `idx` follows what the cache holds, at the cache's positions.
        """
        idx = as_batch(idx, block_size=self.config.block_size)
        T = idx.shape[1]
        positions = torch.arange(T, device=idx.device) if cache is None else cache.positions
        learned, rope = None, None
        if self.config.positions == "learned":
            learned = self.wpe.weight[:T] if cache is None else self.wpe(positions)
        else:
            rope = rope_angles(positions, self.config.n_embd // self.config.n_head)
        x = self.operators.embed(idx, self.wte.weight, learned)
        if self.training and self.config.dropout:
            x = self.operators.dropout(x, self.config.dropout)
        branch = None
        for layer, block in enumerate(self.h):
            x, branch = block(x, branch, rope, None if cache is None else cache.layers[layer])
        dropout = self.config.dropout if self.training else 0.0
        return self.operators.add_norm(x, branch, self.ln_f, dropout=dropout)[1]

    @property
    def head_weight(self) -> Tensor:
        """The head's matrix (V, C)."""
        return self.wte.weight if self.config.tied_head else self.lm_head.weight

    def head(self, x: Tensor) -> Tensor:
        """Return logits (..., V) of hidden states (..., C)."""
        return cap_logits(F.linear(x, self.head_weight), float(self.config.logit_softcap or 0))

    def generate(
        self, idx: Tensor, max_new_tokens: int, temperature: float = 1.0, top_k: int | None = None,
        *, n_tokens: int | None = None, generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Return `idx` (B, T) followed by drawn tokens: (B, T + max_new_tokens).

        The model sees the last block_size tokens. Temperature 0 takes the most likely token, and
        top_k None or 0 draws among all; `n_tokens` keeps to the token numbers below it.
        """
        import nanogpt2  # the cache belongs to a room that builds on this one

        return nanogpt2.continue_tokens(
            self, idx, max_new_tokens, temperature=temperature, top_k=top_k,
            n_tokens=n_tokens, generator=generator,
        )  # fmt: skip

    def factors(self) -> list[Tensor]:
        """Return the weights of all matrix products, each once, but for sums (LoRA)."""
        linear = (m for m in self.modules() if isinstance(m, nn.Linear))
        layers = [m.weight for m in linear if "weight" in m._parameters]
        return [*layers, self.wte.weight] if self.config.tied_head else layers

    def count_parameters(self) -> int:
        """Return the number of weights; the tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


def unwrapped(model: nn.Module) -> GPT:
    """Return the model within what torch.compile, DataParallel and DDP wrap around it."""
    for name in WRAPPERS * 2:
        model = getattr(model, name, model)
    if not isinstance(model, GPT):
        raise ConfigError(f"a GPT is needed, and this is a {type(model).__name__}")
    return model
