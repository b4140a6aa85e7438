"""Sampling: texts that go on from prompts, whole at the end or piece by piece as they come."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nanogpt2.base.screen.screen import phase
from nanogpt2.base.system import arguments, files
from nanogpt2.base.system.arguments import whole_number
from nanogpt2.base.system.errors import DataError
from nanogpt2.config.groups import SampleConfig
from nanogpt2.decode.decoder import MakeDecoder
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.ensemble.decoding import prepare
from nanogpt2.decode.ensemble.ensemble import Model
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import NEUTRAL, Request, check_count
from nanogpt2.sample.stream import TextStream
from nanogpt2.text.reading import plain
from nanogpt2.tokens.normal import BYTE_ORDER_MARK, normalise
from nanogpt2.tokens.tokenizer import Tokenizer

BATCH = 32  # samples side by side; more are drawn in turn


@dataclass
class Meter:
    """Counts tokens drawn and the seconds that drawing took; of later steps also by themselves.

    A text's first token is no step of these: what reads its prompt gives it.
    """

    tokens: int = 0
    seconds: float = 0.0
    steps: int = 0  # each draws a token for every text side by side
    tokens_of_steps: int = 0
    seconds_of_steps: float = 0.0

    def add(self, tokens: int, seconds: float, *, steps: int = 0) -> None:
        """Count `tokens` more, drawn in `seconds`: by so many `steps`, or with the prompt."""
        self.tokens += tokens
        self.seconds += seconds
        if steps:
            self.steps += steps
            self.tokens_of_steps += tokens
            self.seconds_of_steps += seconds


@dataclass(frozen=True)
class Sampler:
    """A model, its tokenizer, and how texts are to be drawn.

    Prompts and stop strings are normalised, as the corpus is.
    """

    model: Model
    tokenizer: Tokenizer
    max_new_tokens: int
    controls: Controls = NEUTRAL
    stop: Sequence[str] = ()
    window: str = "exact"
    int8: bool = False  # decode with weights of 8 bits, on a CPU

    def __post_init__(self) -> None:
        stop = [self.stop] if isinstance(self.stop, str) else self.stop
        object.__setattr__(self, "stop", [normalise(arguments.text("stop", text)) for text in stop])
        check_count(self.max_new_tokens)
        if self.tokenizer.size > self.model.config.vocab_size:
            raise DataError(
                f"tokenizer: found {self.tokenizer.size} tokens; allowed: at most vocab_size"
                f" {self.model.config.vocab_size}"
            )
        if not all(self.stop):
            raise DataError("stop: an empty text would stop before anything is written")

    @cached_property
    def make_decoder(self) -> MakeDecoder:
        """What makes decoders for the model, prepared once for all texts."""
        return prepare(self.model, n_tokens=self.tokenizer.size, int8=self.int8)

    def stream(
        self, prompts: Sequence[str], *, seed: int, meter: Meter | None = None, chunk: int = 16
    ) -> Iterator[list[str]]:
        """Yield what each sample gains, the prompts not counted; an empty text where nothing.

        Sample i is drawn with seed + i; `chunk` tokens come at once, at most. DataError where a
        prompt holds what the tokenizer does not know.
        """
        check_prompts(prompts)
        encoded = [self.encode(prompt) for prompt in prompts]
        seed = whole_number("seed", seed, least=0)
        streams = [TextStream(self.tokenizer, self.stop) for _ in prompts]
        request = Request(
            encoded,
            range(seed, seed + len(prompts)),
            self.max_new_tokens,
            self.controls,
            window=self.window,
            n_tokens=self.tokenizer.size,
            chunk=chunk,
        )
        make_decoder = self.make_decoder  # checked first, where it is new
        meter = meter or Meter()
        began, first = time.perf_counter(), True
        for tokens_drawn in generate_tokens(self.model, request, make_decoder):
            rows = zip(streams, tokens_drawn.tolist(), strict=True)
            texts = [stream.push(tokens) for stream, tokens in rows]
            steps = 0 if first else tokens_drawn.shape[1]
            meter.add(tokens_drawn.numel(), time.perf_counter() - began, steps=steps)
            yield texts
            if all(stream.stopped for stream in streams):
                return
            began, first = time.perf_counter(), False
        yield [stream.finish() for stream in streams]

    def write_on(
        self, prompts: Sequence[str], *, seed: int, meter: Meter | None = None
    ) -> list[str]:
        """Return what each sample adds to its prompt; see `stream`."""
        check_prompts(prompts)
        seed, meter = whole_number("seed", seed, least=0), meter or Meter()
        texts: list[str] = []
        with phase("drawing", len(prompts) * self.max_new_tokens, "tokens") as bar:
            for first in range(0, len(prompts), BATCH):
                pieces = []
                some = prompts[first : first + BATCH]
                for piece in self.stream(some, seed=seed + first, meter=meter):
                    pieces.append(piece)
                    bar.reach(meter.tokens)
                texts += ["".join(parts) for parts in zip(*pieces, strict=True)]
        return texts

    def changed(self, **settings: Any) -> "Sampler":
        """Return this sampler with other settings; ConfigError where one is out of range.

        They are `max_new_tokens`, or fields of its controls. What decodes is shared.
        """
        own = {key: settings.pop(key) for key in ("max_new_tokens",) if key in settings}
        controls = replace(self.controls, **settings)
        sampler = replace(self, controls=controls, **own)
        sampler.__dict__["make_decoder"] = self.make_decoder
        return sampler

    def encode(self, prompt: str) -> list[int]:
        """Return the tokens of `prompt`; those of an empty one are what a text starts from."""
        tokens = self.tokenizer.encode(normalise(arguments.text("prompt", prompt))).tolist()
        return tokens or [start_token(self.tokenizer)]


def make_sampler(
    model: Model, tokenizer: Tokenizer, config: SampleConfig, *, int8: bool = False
) -> Sampler:
    """Return the sampler that `config` asks for."""
    controls = Controls(
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
        repetition_penalty=config.repetition_penalty,
    )
    return Sampler(
        model,
        tokenizer,
        config.max_new_tokens,
        controls,
        stop=config.stop,
        window=config.window,
        int8=int8,
    )


def sample_texts(
    model: Model, tokenizer: Tokenizer, prompt: str, config: SampleConfig
) -> list[str]:
    """Return `config.num_samples` texts, each the normalised prompt and what follows it.

    Each sample has a seed of its own, so that it does not depend on how many are drawn. Raises
    DataError where the prompt holds what the tokenizer does not know.
    """
    sampler = make_sampler(model, tokenizer, config)
    texts = sampler.write_on([prompt] * config.num_samples, seed=config.seed)
    return [normalise(prompt) + text for text in texts]


def check_prompts(prompts: Any) -> None:
    """Raise DataError where these are not several texts."""
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        found = "one text" if isinstance(prompts, str) else type(prompts).__name__
        raise DataError(f"prompts: found {found}; allowed: a list of texts")


def start_token(tokenizer: Tokenizer) -> int:
    """Return what an empty prompt starts from: a newline, or token 0 where there is none."""
    tokens = range(tokenizer.size)
    return next((token for token in tokens if tokenizer.token_bytes(token) == b"\n"), 0)


def read_prompt(config: SampleConfig) -> str:
    """Return the prompt: the text of the configuration, or else of its prompt_file."""
    return plain.read_prompt(config.prompt, Path(config.prompt_file))


def read_prompt_file(path: str | Path) -> str:
    """Return the text in `path` as one prompt; its last newline does not count."""
    return plain.read_prompt(None, path)


def read_prompts(path: str | Path) -> list[str]:
    """Return the prompts in `path`: its lines; of a .jsonl file, each line's "prompt".

    Blank lines are none. DataError names the line that is wrong, or says that there is none.
    """
    prompts = list(_prompts_in(Path(path)))
    if not prompts:
        raise DataError(f"{path}: no prompt; allowed: a prompt in each line")
    return prompts


def _prompts_in(path: Path) -> Iterator[str]:
    if path.suffix != ".jsonl":
        yield from filter(str.strip, plain.read_text(path).split("\n"))
        return
    # not normalised yet: a text in JSON may hold U+0085 and U+2028 as they are
    text = plain.decode_as_is(files.read_bytes(path), path).removeprefix(BYTE_ORDER_MARK)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompt = json.loads(line)["prompt"]
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise DataError(f'{path}: line {number}: not {{"prompt": "a text"}}') from error
        if not isinstance(prompt, str):
            raise DataError(f"{path}: line {number}: prompt: not a text")
        yield normalise(prompt)


def write_samples(folder: str | Path, texts: Sequence[str]) -> None:
    """Write each text to a file of its own in `folder`, anew."""

    def fill(new: Path) -> None:
        for number, text in enumerate(texts, start=1):
            files.write_text(new / f"sample_{number}.txt", text + "\n")

    files.replace_folder(folder, fill)
