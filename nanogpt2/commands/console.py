"""Writing on a terminal: text as it comes, a conversation, and one answer for each prompt."""

import json
from collections.abc import Callable, Sequence

from nanogpt2.base.errors import DataError
from nanogpt2.sample.sample import Meter, Sampler
from nanogpt2.tokens.normal import normalise

Write = Callable[[str], object]  # shows a text at once, and adds nothing


def write_stream(
    sampler: Sampler, prompt: str, *, seed: int, write: Write, meter: Meter | None = None
) -> None:
    """Write `prompt`, normalised, and what follows it, as it comes."""
    on_gpu = sampler.model.wte.weight.is_cuda  # there, asking for each token would cost most time
    pieces = sampler.stream([prompt], seed=seed, meter=meter, chunk=16 if on_gpu else 1)
    first = next(pieces)[0]  # a mistake in the prompt comes to light here, before it is shown
    write(normalise(prompt) + first)
    for (piece,) in pieces:
        write(piece)
    write("\n")


def converse(
    sampler: Sampler, *, seed: int, read: Callable[[str], str], write: Write, say: Write
) -> None:
    """Go on from each line that `read` returns, until it raises EOFError or KeyboardInterrupt.

    Ctrl-C while text is written ends that text alone; a mistake in a prompt is said in a line.
    """
    say("Write a prompt, then Enter. Ctrl-C stops a text; Ctrl-D ends.\n")
    while True:
        try:
            prompt = read("> ")
        except (EOFError, KeyboardInterrupt):
            say("\n")
            return
        try:
            write_stream(sampler, prompt, seed=seed, write=write)
        except KeyboardInterrupt:
            say("\n")
        except DataError as error:
            say(f"{error}\n")
        seed += 1


def write_answers(
    sampler: Sampler,
    prompts: Sequence[str],
    *,
    seed: int,
    as_json: bool,
    write: Write,
    meter: Meter | None = None,
) -> None:
    """Write one sample for each prompt: whole texts, or JSON lines of prompt, text and seed."""
    texts = sampler.write_on(prompts, seed=seed, meter=meter)
    for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        answer = {"prompt": prompt, "text": text, "seed": seed + number}
        write((json.dumps(answer, ensure_ascii=False) if as_json else prompt + text) + "\n")
