"""GPT-2 in one file: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".

Learned positions, pre-norm blocks, tanh GELU, and a head tied to the token embedding. Weights have
GPT-2's names and nn.Linear's layout (transposed against GPT-2's Conv1D).
B: batch, T: tokens, C: n_embd channels, V: vocab_size.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.config import Config, make_config
from nanogpt2.errors import DataError


class LayerCache(Protocol):
    """Keys and values that one layer has seen; `nanogpt2.decoding` has the real one."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep `k` and `v` (B, heads, T, D); return what `q` reads of all kept: as q's shape."""


class Cache(Protocol):
    """What the model asks of a key-value cache."""

    @property
    def layers(self) -> Sequence[LayerCache]:
        """The cache of each layer."""

    @property
    def positions(self) -> Tensor:
        """Positions (B, T) of the tokens being read."""


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.attn_dropout = config.dropout
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, heads, T, C/heads)
            for part in self.c_attn(x).split(C, dim=2)
        )
        if cache is None:
            dropout = self.attn_dropout if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        else:
            y = cache.attend(q, k, v)
        y = y.transpose(1, 2).reshape(B, T, C)
        projected: Tensor = self.resid_dropout(self.c_proj(y))
        return projected


class MLP(nn.Module):
    """Two linear layers, four times as wide between them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.c_fc(x), approximate="tanh")  # GPT-2's form of GELU
        projected: Tensor = self.dropout(self.c_proj(x))
        return projected


class Block(nn.Module):
    """Attention, then MLP; each reads a normed copy and adds to the residual stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache)
        x = x + self.mlp(self.ln_2(x))
        return x


class GPT(nn.Module):
    """A language model; `config` is a Config, or a mapping whose absent keys take their defaults.

    The initial weights are a function of the configuration and its seed. ConfigError where the
    configuration is not valid.
    """

    def __init__(self, config: Config | Mapping[str, Any]) -> None:
        super().__init__()
        if not isinstance(config, Config):
            config = make_config(config, name="configuration")
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        if not self.wte.weight.is_meta:
            self.init_weights(torch.Generator().manual_seed(config.seed))

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw matrices and embeddings from N(0, 0.02), as GPT-2 does; biases are 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                # 2 * n_layer branches add up in the residual stream: GPT-2 paper, section 2.3
                std = 0.02 / math.sqrt(2 * self.config.n_layer)
                parameter.normal_(0.0, std, generator=generator)
            elif parameter.dim() == 2:
                parameter.normal_(0.0, 0.02, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        """Return logits (B, T, V) for tokens `idx` (B, T); with `targets`, (logits, loss).

        The loss is the mean cross-entropy in nats per token; a target of -1 does not count.
        """
        logits = self.head(self.hidden(idx))
        if targets is None:
            return logits
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-1)
        return logits, loss

    def hidden(self, idx: Tensor, cache: Cache | None = None) -> Tensor:
        """Return the final hidden states (B, T, C); DataError where T exceeds block_size.

        With a `cache`, `idx` follows what the cache holds, at the cache's positions.
        """
        T = idx.shape[1]
        if self.config.block_size < T:
            raise DataError(f"{T} tokens are more than block_size {self.config.block_size}")
        x = self.wte(idx) + (self.wpe.weight[:T] if cache is None else self.wpe(cache.positions))
        x = self.drop(x)
        for layer, block in enumerate(self.h):
            x = block(x, None if cache is None else cache.layers[layer])
        normed: Tensor = self.ln_f(x)
        return normed

    def head(self, x: Tensor) -> Tensor:
        """Return logits (..., V) of hidden states (..., C)."""
        return F.linear(x, self.wte.weight)

    @torch.no_grad()
    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        *,
        n_tokens: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return `idx` (B, T) followed by drawn tokens: (B, T + max_new_tokens).

        The model sees the last block_size tokens. Temperature 0 takes the most likely token;
        `n_tokens` keeps to the token numbers below it.
        """
        training = self.training
        self.eval()
        for _ in range(max_new_tokens):
            context = idx[:, -self.config.block_size :]
            logits = self.head(self.hidden(context)[:, -1])[:, :n_tokens].float()
            token = draw_token(logits, temperature=temperature, top_k=top_k, generator=generator)
            idx = torch.cat([idx, token], dim=1)
        self.train(training)
        return idx

    def count_parameters(self) -> int:
        """Return the number of weights; the tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


def draw_token(
    logits: Tensor, *, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> Tensor:
    """Return one token for each row of `logits` (B, V): (B, 1)."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits / temperature
    if top_k is not None:
        kept = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values
        logits = logits.masked_fill(logits < kept[:, -1:], -math.inf)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
