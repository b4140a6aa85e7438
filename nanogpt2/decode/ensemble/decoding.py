"""Decoding an ensemble: a decoder, and so a key-value cache, for each model."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from nanogpt2.decode.decoder import Decoder, MakeDecoder, ModuleDecoder
from nanogpt2.decode.ensemble.ensemble import Ensemble, Model, mean_logits
from nanogpt2.decode.kernels import choose


def prepare(
    model: Model, *, n_tokens: int | None = None, quick: bool = True, int8: bool = False
) -> MakeDecoder:
    """Return what makes decoders for `model`, the quickest unless told; see `choose.prepare`.

    Those of an ensemble give logits of the tokens that all of its models know, or of `n_tokens`.
    """
    if isinstance(model, Ensemble):
        n_tokens = n_tokens or model.config.vocab_size
        make = partial(prepare, n_tokens=n_tokens, quick=quick, int8=int8)
        return partial(EnsembleDecoder, [make(each) for each in model.members])
    if quick:
        return choose.prepare(model, n_tokens=n_tokens, int8=int8)
    return partial(ModuleDecoder, model, n_tokens=n_tokens)


class EnsembleDecoder:
    """Decodes with each model in turn, and gives the mean of their probabilities; see `Decoder`."""

    def __init__(self, make: Sequence[MakeDecoder], *, rows: int) -> None:
        self.decoders: list[Decoder] = [each(rows=rows) for each in make]

    def encode(self, tokens: Tensor, row: int) -> Tensor:
        """Put `tokens` (T,) into `row`, from position 0; return the last's logits (V,)."""
        return mean_logits(decoder.encode(tokens, row) for decoder in self.decoders)

    def copy_row(self, source: int, rows: Sequence[int], length: int) -> None:
        """Make each of `rows` hold the first `length` tokens of the row `source`."""
        for decoder in self.decoders:
            decoder.copy_row(source, rows, length)

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Add one token to each row: `tokens` (B,) at `positions` (B,); return logits (B, V)."""
        return mean_logits(decoder.step(tokens, positions) for decoder in self.decoders)

    def last_logits(self, idx: Tensor) -> Tensor:
        """Return the logits (B, V) after each row of `idx` (B, T), without the cache."""
        return mean_logits(decoder.last_logits(idx) for decoder in self.decoders)

    def reach(self, length: int) -> int:
        """Let `step` read up to `length` tokens or more; return another number where one differs.

        Each decoder's own number never falls as `length` grows, so their sum tells them apart.
        """
        return sum(decoder.reach(length) for decoder in self.decoders)


def last_logits(model: Model, idx: Tensor, n_tokens: int | None) -> Tensor:
    """Return logits (B, V) after each row of `idx` (B, T), by the modules, without a cache."""
    if isinstance(model, Ensemble):
        n_tokens = n_tokens or model.config.vocab_size
        return mean_logits(last_logits(each, idx, n_tokens) for each in model.members)
    return model.head(model.hidden(idx)[:, -1])[:, :n_tokens].float()


def slides(model: Model) -> bool:
    """Return whether a full window slides: no position is learnt, and all caches are as long."""
    return model.slides if isinstance(model, Ensemble) else not hasattr(model, "wpe")
