"""Generation: prompts of any lengths in, drawn tokens out, for many samples side by side.

Past block_size the meaning is nanoGPT's: the model sees the last block_size tokens, from position
0 on. A token's position then changes at each step, and with it all keys and values, so `exact`
reads the whole window anew for each token; `half` reads the last half once each time it is full.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from nanogpt2.base.system.arguments import whole_number
from nanogpt2.decode.decoder import MakeDecoder
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.ensemble.decoding import last_logits, prepare, slides
from nanogpt2.decode.ensemble.ensemble import Model, unwrapped_model
from nanogpt2.device.threads import share_cores
from nanogpt2.model.modes import evaluating
from nanogpt2.sample.drafts import Drafts, make_drafts
from nanogpt2.sample.request import Request, as_idx, require_finite
from nanogpt2.sample.steps import Steps, steps_for

AT_ONCE = 128  # tokens that are handed out together, where nobody waits for the first ones


def generate(
    model: nn.Module,
    idx: Tensor,
    max_new_tokens: int,
    *,
    controls: Controls,
    seed: int,
    window: str = "exact",
    use_cache: bool = True,
    make_decoder: MakeDecoder | None = None,
) -> Tensor:
    """Return `idx` (B, T) followed by drawn tokens: (B, T + max_new_tokens).

    Row i is drawn with seed + i, so it is the same text in any batch.
    """
    model = unwrapped_model(model)
    idx = as_idx(idx, vocab_size=model.config.vocab_size)
    seed = whole_number("seed", seed, least=0)
    seeds = range(seed, seed + len(idx))
    request = Request(
        idx.tolist(), seeds, max_new_tokens, controls, window=window, use_cache=use_cache,
        chunk=AT_ONCE,
    )  # fmt: skip
    chunks = generate_tokens(model, request, make_decoder)
    return torch.cat([idx, *(chunk.to(idx.device) for chunk in chunks)], dim=1)


@torch.no_grad()
def generate_tokens(
    model: Model, request: Request, make_decoder: MakeDecoder | None = None
) -> Iterator[Tensor]:
    """Yield drawn tokens (B, 1 or more) until each row has `max_new_tokens`.

    `make_decoder` is what `prepare` returned, where more than one request follows: those of a kind
    share a decoder then, and its CUDA graphs. A generator that is no longer wanted may simply be
    dropped.
    """
    request.check_for(model.config.vocab_size)
    if not request.max_new_tokens or not request.prompts:
        return
    share_cores()
    with evaluating(model):
        make_decoder = make_decoder or prepare(model, n_tokens=request.n_tokens)
        with steps_for(model, request, make_decoder) as steps:
            yield from Generation(model, request, steps).run()


class Generation:
    """A request on its way: what each row has so far, and what of it is in the cache."""

    def __init__(self, model: Model, request: Request, steps: Steps) -> None:
        self.block_size, self.slides = model.config.block_size, slides(model)
        self.model, self.request, self.device = model, request, model.wte.weight.device
        self.steps, self.decoder, self.drawn = steps, steps.decoder, steps.drawn
        prompts = [torch.tensor(prompt) for prompt in request.prompts]
        self.lengths = [len(prompt) for prompt in prompts]  # of all tokens so far
        room = max(self.lengths) + request.max_new_tokens
        self.history = torch.zeros(len(prompts), room, dtype=torch.long)  # on the host, for windows
        for row, prompt in enumerate(prompts):
            self.history[row, : len(prompt)] = prompt
        self.cached = [0] * len(prompts)  # tokens of each row in the cache
        self.drafts = make_drafts(self.decoder, request)

    def run(self) -> Iterator[Tensor]:
        """Yield drawn tokens (B, 1 .. chunk)."""
        with torch.inference_mode():
            self.begin()
            chunk = self.hand_out(1)
        yield chunk
        left = self.request.max_new_tokens - 1
        while left:
            with torch.inference_mode():
                chunk = self.advance_all(left)
            yield chunk
            left -= chunk.shape[1]

    def begin(self) -> None:
        """Read the prompts and draw the first token of each row."""
        if self.request.use_cache and self.lengths == [1]:
            logits = self.steps.first(self.request.prompts[0][0])
            if logits is not None:
                require_finite(logits)
                self.cached = [1]
                return
        self.steps.take(require_finite(self.read_prompts()))

    def advance_all(self, left: int) -> Tensor:
        """Draw between 1 and `left` tokens for each row and return them."""
        full = [row for row, cached in enumerate(self.cached) if self.is_full(cached)]
        if full or not self.request.use_cache:
            self.steps.take(self.read_windows(full))
            return self.hand_out(1)
        room = left if self.slides else min(left, self.block_size - max(self.cached))
        count = min(room, self.request.chunk)
        if self.drafts is None:
            self.step_many(count)
        elif guess := self.drafts.guess(min(count, self.block_size - self.cached[0]) - 1):
            count = self.check(guess, self.drafts)
        else:
            count = min(count, self.drafts.between)
            self.step_many(count)
        self.cached = [cached + count for cached in self.cached]
        return self.hand_out(count)

    def step_many(self, count: int) -> None:
        """Draw `count` tokens for each row."""
        self.steps.many(count, min(max(self.cached) + count, self.block_size))

    def check(self, guess: Sequence[int], drafts: Drafts) -> int:
        """Draw tokens of the one row as long as they are those of `guess`, and one more."""
        drawn, done, start = self.drawn, int(self.drawn.count), int(self.drawn.chunk_count)
        uniforms = self.steps.uniforms[0, done : done + len(guess) + 1, None].contiguous()
        logits = drafts.read([int(drawn.tokens), *guess], self.cached[0])
        tokens = self.steps.draw(logits, uniforms, self.request.controls)
        count = drafts.learn(guess, tokens.tolist()) + 1
        drawn.chunk[0, start : start + count] = tokens[:count]
        drawn.tokens.copy_(tokens[count - 1])
        for counted in (drawn.positions, drawn.count, drawn.chunk_count):
            counted += count
        return count

    def is_full(self, cached: int) -> bool:
        """Return whether the next token of a row with `cached` tokens is past the block."""
        return cached >= self.block_size and not self.slides

    def read_prompts(self) -> Tensor:
        """Return the logits (B, V) after each prompt's last block_size tokens, now in the cache."""
        if not self.request.use_cache:
            return self.read_windows([])
        rows_with = dict[tuple[int, ...], list[int]]()
        for row, prompt in enumerate(self.request.prompts):
            rows_with.setdefault(tuple(prompt), []).append(row)
        logits = [torch.empty(0)] * len(self.lengths)
        for source, *others in rows_with.values():
            logits[source] = self.encode(source, self.block_size)
            if others:
                self.decoder.copy_row(source, others, self.cached[source])
            for row in others:
                self.cached[row], logits[row] = self.cached[source], logits[source]
        self.drawn.positions.copy_(torch.tensor(self.cached) - 1)
        return torch.stack(logits)

    def encode(self, row: int, size: int) -> Tensor:
        """Put the last `size` tokens of `row` into the cache anew; return logits (V,)."""
        tokens = self.history[row, max(0, self.lengths[row] - size) : self.lengths[row]]
        self.cached[row] = len(tokens)
        return self.decoder.encode(tokens.to(self.device), row)

    def read_windows(self, full: Sequence[int]) -> Tensor:
        """Return the logits (B, V) after each row's last token, reading anew the `full` rows."""
        rows = range(len(self.lengths))
        if not self.request.use_cache:
            return torch.cat([self.window_logits([row]) for row in rows])
        others = [row for row in rows if row not in full]
        if self.request.window == "exact" and not others:
            return self.window_logits(rows)
        self.decoder.reach(self.block_size)
        at = self.drawn.positions.clamp(max=self.block_size - 1)
        logits = self.decoder.step(self.drawn.tokens, at)
        for row in others:
            self.cached[row] += 1
        if self.request.window == "exact":
            logits[list(full)] = self.window_logits(full)
        else:
            for row in full:
                logits[row] = self.encode(row, max(1, self.block_size // 2))
        self.drawn.positions.copy_(torch.tensor(self.cached) - 1)
        return logits

    def window_logits(self, rows: Sequence[int]) -> Tensor:
        """Return the logits (R, V) after the last block_size tokens of `rows`, without the cache.

        Rows that are not full, which only `use_cache=False` asks for, come one at a time.
        """
        ends = [self.lengths[row] for row in rows]
        windows = [
            self.history[row, max(0, end - self.block_size) : end]
            for row, end in zip(rows, ends, strict=True)
        ]
        idx = torch.stack(windows).to(self.device)
        if self.request.use_cache:
            return self.decoder.last_logits(idx)
        return last_logits(self.model, idx, self.request.n_tokens)

    def hand_out(self, count: int) -> Tensor:
        """Return the last `count` tokens of each row, on the host, and add them to the history."""
        chunk = self.drawn.chunk[:, :count].cpu().clone()
        self.drawn.chunk_count.zero_()
        places = torch.tensor(self.lengths)[:, None] + torch.arange(count)
        self.history.scatter_(1, places, chunk)
        self.lengths = [length + count for length in self.lengths]
        if self.drafts is not None:
            self.drafts.add(chunk[0].tolist())
        return chunk
