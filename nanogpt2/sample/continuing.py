"""Going on from tokens as nanoGPT does: `model.generate`, drawn with torch's generator."""

import torch
from torch import Tensor, nn

from nanogpt2.decode.draw import Controls, draw_token
from nanogpt2.decode.ensemble.decoding import prepare
from nanogpt2.decode.ensemble.ensemble import Model, unwrapped_model
from nanogpt2.device.threads import share_cores
from nanogpt2.model.modes import evaluating
from nanogpt2.sample.request import (
    as_idx,
    check_count,
    check_generator,
    check_n_tokens,
    require_finite,
)

FEW = 8  # tokens, below which a copy of the weights costs more than it saves


@torch.no_grad()
def continue_tokens(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    n_tokens: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return `idx` (B, T) followed by tokens that torch draws: (B, T + max_new_tokens).

    The model sees the last block_size tokens from position 0 on, with rotary positions too.
    ConfigError or DataError where an argument is out of range.
    """
    model = unwrapped_model(model)
    device, vocab_size = model.wte.weight.device, model.config.vocab_size
    controls = Controls(temperature, top_k)
    check_count(max_new_tokens)
    check_n_tokens(n_tokens, vocab_size)
    check_generator(generator, device)
    tokens = as_idx(idx, vocab_size=vocab_size)
    share_cores()
    with evaluating(model):
        text = _continue(
            model,
            tokens.to(device),
            max_new_tokens,
            controls,
            n_tokens=n_tokens,
            generator=generator,
        )
    return text.to(tokens.device)


def _continue(
    model: Model,
    idx: Tensor,
    max_new_tokens: int,
    controls: Controls,
    *,
    n_tokens: int | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Return what `continue_tokens` does, of checked arguments and on the model's device."""
    (rows, length), block_size = idx.shape, model.config.block_size
    make_decoder = prepare(model, n_tokens=n_tokens, quick=max_new_tokens >= FEW)
    cached = max_new_tokens > 1 and length < block_size
    decoder = make_decoder(rows=rows if cached else 1)
    text = torch.cat([idx, idx.new_zeros(rows, max_new_tokens)], dim=1)
    for end in range(length, text.shape[1]):
        if end > block_size or not cached:
            logits = decoder.last_logits(text[:, max(0, end - block_size) : end])
        elif end == length:
            logits = torch.stack([decoder.encode(text[row, :end], row) for row in range(rows)])
        else:
            decoder.reach(end)
            logits = decoder.step(text[:, end - 1], idx.new_full((rows,), end - 1))
        if end == length:
            require_finite(logits)
        text[:, end : end + 1] = draw_token(
            logits,
            temperature=controls.temperature,
            top_k=controls.top_k,
            generator=generator,
        )
    return text
