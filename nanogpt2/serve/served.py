"""A model that is served: its name, its tokenizer, and requests turned into jobs for its engine."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from nanogpt2.base.system.errors import DataError
from nanogpt2.decode.ensemble.decoding import slides
from nanogpt2.decode.ensemble.ensemble import Model
from nanogpt2.sample.request import require_finite
from nanogpt2.sample.sample import Sampler
from nanogpt2.sample.stream import TextStream
from nanogpt2.serve.batching.answer import Answer, Told
from nanogpt2.serve.batching.batch import Batch, tell_likely
from nanogpt2.serve.batching.drawing import Drawing, Window
from nanogpt2.serve.batching.lanes import open_lanes
from nanogpt2.serve.completions.choices import Names
from nanogpt2.serve.completions.errors import wrong
from nanogpt2.serve.completions.limits import Limits
from nanogpt2.serve.completions.protocol import Completion
from nanogpt2.serve.engine import Engine, Job
from nanogpt2.serve.metrics import Metrics, ModelMetrics
from nanogpt2.tokens.normal import normalise
from nanogpt2.tokens.tokenizer import Tokenizer


@dataclass
class Served:
    """A model with its engine."""

    name: str
    model: Model
    tokenizer: Tokenizer
    created: int  # seconds since 1970
    engine: Engine
    limits: Limits
    sampler: Sampler
    metrics: ModelMetrics
    names: Names = field(init=False)
    reader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def __post_init__(self) -> None:
        self.names = Names(self.tokenizer)

    @property
    def weights(self) -> int:
        """How many weights it has."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    async def read(self, work: Callable[[], None]) -> None:
        """Do `work` in a thread, one after the other, while others are being drawn."""
        await asyncio.get_running_loop().run_in_executor(self.reader, work)

    def describe(self) -> dict[str, Any]:
        """Return what /v1/models tells of it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "nanogpt2",
            "parameters": self.weights,
            "tokens": self.tokenizer.size,
            "block_size": self.model.config.block_size,
        }

    def make_job(self, asked: Completion) -> Job:
        """Return the answers that are asked for; Refusal where a prompt cannot be read."""
        prompts = [self.encode(prompt) for prompt in asked.prompts]
        if (count := sum(map(len, prompts))) > self.limits.prompt_tokens:
            raise wrong("prompt", f"{count} tokens", f"{self.limits.prompt_tokens} in all")
        answers = [
            self._make_answer(asked, prompt, index * asked.n + number)
            for index, prompt in enumerate(prompts)
            for number in range(asked.n)
        ]
        return Job(answers, asked.stream)

    def encode(self, prompt: str | Sequence[int]) -> list[int]:
        """Return the tokens of `prompt`, as the command generate does."""
        if not isinstance(prompt, str):
            if min(prompt) < 0 or max(prompt) >= self.tokenizer.size:
                raise wrong("prompt", prompt, f"token numbers below {self.tokenizer.size}")
            return list(prompt)
        try:
            return self.sampler.encode(prompt)
        except (DataError, UnicodeEncodeError) as error:
            raise wrong("prompt", prompt, f"a text that the tokenizer knows: {error}") from error

    def _make_answer(self, asked: Completion, prompt: Sequence[int], index: int) -> Answer:
        drawing = Drawing(
            prompt,
            asked.seed + index,
            asked.max_tokens,
            asked.controls,
            window=asked.window,
            logprobs=asked.logprobs,
        )
        return Answer(
            index,
            drawing,
            TextStream(self.tokenizer, asked.stop),
            tells=asked.logprobs is not None or asked.return_token_ids,
            finish=None if asked.max_tokens else "length",
        )

    def echo_prompts(self, asked: Completion, job: Job) -> None:
        """Let each answer begin with its prompt; its tokens are told as drawn ones are.

        It may take long: it belongs into a thread.
        """
        for at, prompt in enumerate(asked.prompts):
            answers = job.answers[at * asked.n : (at + 1) * asked.n]
            tokens = answers[0].drawing.prompt
            if isinstance(prompt, str):
                text, tokens = normalise(prompt), tokens if prompt else ()
            else:
                text = TextStream(self.tokenizer, ()).push(tokens)
            told = self._tell(tokens, asked.logprobs) if answers[0].tells else ()
            for answer in answers:
                answer.echo(text, told)

    @torch.inference_mode()
    def _tell(self, tokens: Sequence[int], logprobs: int | None) -> list[Told]:
        """Return the tokens of a prompt, read in windows of block_size as `score` reads them."""
        device, size = self.model.wte.weight.device, self.model.config.block_size
        likely: list[Any] = [None] * min(1, len(tokens))
        for start in range(0, len(tokens) - 1, size):
            idx = torch.tensor(tokens[start : start + size + 1], device=device)
            logits = self.model(idx[None, :-1])[0, :, : self.tokenizer.size].float()
            likely += tell_likely(logits, idx[1:].tolist(), [logprobs] * len(logits))
        stream, told, length = TextStream(self.tokenizer, ()), [], 0
        for token, each in zip(tokens, likely, strict=True):
            told.append(Told(token, length, each))
            length += len(stream.push([token]))
        return told


def serve_model(
    name: str, model: Model, tokenizer: Tokenizer, limits: Limits, metrics: Metrics, *,
    created: int, int8: bool = False,
) -> Served:  # fmt: skip
    """Return `model` ready to serve; DataError where its weights are not finite.

    With `int8` they have 8 bits where tokens are drawn; DeviceError where that cannot be.
    """
    model.eval()
    sampler = Sampler(model, tokenizer, max_new_tokens=0, int8=int8)
    lanes = open_lanes(model, sampler.make_decoder, rows=limits.rows)
    window = Window(model.config.block_size, slides(model))
    batches = [Batch(each, window, n_tokens=tokenizer.size) for each in lanes]
    counts = ModelMetrics(metrics, name)
    engine = Engine(batches, limits, counts)
    served = Served(name, model, tokenizer, created, engine, limits, sampler, counts)
    with torch.inference_mode():
        require_finite(model(torch.tensor([served.encode("")], device=model.wte.weight.device)))
    return served
