"""Steps of samples side by side: a decoder, and tensors that a step changes in place.

So a CUDA graph can do a step, and what one request made serves the next one of its kind.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from nanogpt2.decode.decoder import MakeDecoder, ModuleDecoder
from nanogpt2.decode.draw import Drawn, draw_uniforms, place_uniforms
from nanogpt2.decode.ensemble.ensemble import Model
from nanogpt2.decode.kernels.choose import choose_draw, choose_note
from nanogpt2.decode.kernels.cpu import CompiledDecoder
from nanogpt2.device.graph import capturing
from nanogpt2.sample.request import Request

MOST_KEPT = 8  # samples; the caches of more take memory that other work may want
FEWEST = 1024  # tokens that those which are kept have room for


class Steps:
    """Draws one token after another for each sample of requests of one kind."""

    def __init__(self, model: Model, request: Request, make_decoder: MakeDecoder) -> None:
        weight, rows = model.wte.weight, len(request.prompts)
        self.device, self.is_kept = weight.device, rows <= MOST_KEPT
        self.decoder = make_decoder(rows=rows)
        self.draw, self.note = choose_draw(weight), choose_note(weight)
        self.controls, self.kind = request.controls, kind_of(request)
        fewest = FEWEST if self.is_kept else 1
        room = 1 << (max(fewest, request.max_new_tokens) - 1).bit_length()
        self.uniforms = place_uniforms(torch.zeros(rows, room, dtype=torch.float64), self.device)
        sizes = (rows,), (rows,), (rows, request.chunk), (1,), (1,)
        self.drawn = Drawn(*(torch.zeros(x, dtype=torch.long, device=self.device) for x in sizes))
        self.seen: Tensor | None = None
        if self.controls.repetition_penalty != 1:
            n_tokens = request.n_tokens or model.config.vocab_size
            self.seen = torch.zeros(rows, n_tokens, dtype=torch.bool, device=self.device)
        self.graphs: dict[int, Callable[[], Tensor]] = {}  # by how far attention reads

    def serves(self, request: Request) -> bool:
        """Return whether it can do `request`, once it has begun with it."""
        return kind_of(request) == self.kind and request.max_new_tokens <= self.uniforms.shape[1]

    def begin(self, request: Request) -> None:
        """Take up `request`; nothing is left of the last one."""
        uniforms = draw_uniforms(request.seeds, request.max_new_tokens)
        self.uniforms[:, : request.max_new_tokens] = place_uniforms(uniforms, self.device)
        drawn = self.drawn
        for counted in (drawn.tokens, drawn.positions, drawn.count, drawn.chunk_count):
            counted.zero_()
        if self.seen is not None:
            self.seen.copy_(mark_seen(request, self.seen.shape[1]))

    def first(self, token: int) -> Tensor | None:
        """Read a prompt of one `token` as a step does, and draw; return the logits (1, V).

        None, and nothing is done, where the decoder reads prompts otherwise, or there is no graph.
        """
        decoder = self.decoder
        if not (isinstance(decoder, ModuleDecoder) and decoder.begins_with_step):
            return None
        graph = self.graphs.get(decoder.reach(1))
        if graph is None:
            return None
        self.drawn.tokens.fill_(token)
        return graph()

    def take(self, logits: Tensor) -> Tensor:
        """Draw a token for each row of `logits` (B, V), take note of it in place; return them."""
        given = logits, self.uniforms, self.controls
        self.note(self.draw(*given, seen=self.seen, column=self.drawn.count), self.drawn)
        if self.seen is not None:
            self.seen.scatter_(1, self.drawn.tokens[:, None], True)
        return logits

    def step(self) -> Tensor:
        """Decode the last tokens and draw the next ones, all in place; return the logits (B, V)."""
        return self.take(self.decoder.step(self.drawn.tokens, self.drawn.positions))

    def many(self, count: int, length: int) -> None:
        """Call `step` `count` times, the cache holding `length` tokens at most in the end.

        On CUDA as a graph, captured for each length of the cache. The first of such a length is no
        graph: it compiles kernels, and cuBLAS settles.
        """
        if isinstance(self.decoder, CompiledDecoder):
            self._go_on(self.decoder, count)
            return
        reach = self.decoder.reach(length)
        for left in reversed(range(count)):
            if reach in self.graphs:
                self.graphs[reach]()
                continue
            self.step()
            if left and self.device.type == "cuda":
                self.graphs[reach] = capture(self.step)

    def _go_on(self, decoder: CompiledDecoder, count: int) -> None:
        """Do what `count` calls of `step` do, in few calls of `decoder`."""
        drawn, done, start = self.drawn, int(self.drawn.count), int(self.drawn.chunk_count)
        decoder.go_on(
            drawn.tokens,
            drawn.positions,
            self.uniforms[:, done : done + count],
            self.controls,
            self.seen,
            drawn.chunk[:, start : start + count],
        )
        drawn.count.add_(count)
        drawn.chunk_count.add_(count)


# Those of the last request of a decoder's maker that has ended, and that no other uses meanwhile.
_kept: WeakKeyDictionary[MakeDecoder, Steps] = WeakKeyDictionary()


@contextmanager
def steps_for(model: Model, request: Request, make_decoder: MakeDecoder) -> Iterator[Steps]:
    """Give steps for `request`: new ones, or what an earlier request of `make_decoder` left.

    They are left for a later one, unless an error ends this one: then their memory is given back.
    """
    steps = _kept.pop(make_decoder, None)
    if steps is None or not steps.serves(request):
        del steps  # so that there is never the memory of two
        steps = Steps(model, request, make_decoder)
    steps.begin(request)
    try:
        yield steps
    except GeneratorExit:  # of who asked and no longer wants it
        _leave(steps, make_decoder)
        raise
    _leave(steps, make_decoder)


def _leave(steps: Steps, make_decoder: MakeDecoder) -> None:
    if steps.is_kept:
        _kept[make_decoder] = steps


def kind_of(request: Request) -> tuple[object, ...]:
    """Return what the shapes and graphs of steps depend on, but for how many there are."""
    return len(request.prompts), request.chunk, request.controls, request.n_tokens


def mark_seen(request: Request, n_tokens: int) -> Tensor:
    """Return which of the tokens below `n_tokens` each prompt has: (B, `n_tokens`)."""
    seen = torch.zeros(len(request.prompts), n_tokens, dtype=torch.bool)
    for row, prompt in enumerate(request.prompts):
        seen[row, [token for token in prompt if token < n_tokens]] = True
    return seen


def capture(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return `step`, which has run before, as a CUDA graph: one launch for all its kernels."""
    graph = torch.cuda.CUDAGraph()
    with capturing(graph):
        result = step()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
