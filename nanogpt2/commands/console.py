"""Writing on a terminal: text as it comes, a conversation, and one answer for each prompt."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from nanogpt2.base.system.arguments import whole_number
from nanogpt2.base.system.errors import ConfigError, NanoGPT2Error
from nanogpt2.decode.draw import RANGES
from nanogpt2.sample.request import LARGEST_SEED, MOST_TOKENS
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


WELCOME = (
    "The model continues what you write; it does not converse, and each text starts anew.\n"
    "Write how a text begins, then Enter. Ctrl-C stops a text; Ctrl-D ends. /help says more.\n"
)
HELP = """/temperature 0.7    below 1 safer, above 1 wilder, 0 greedy
/length 200         tokens in each text
/top-k 50           draw among the k most likely; 0 among all
/seed 1             of the next text; the ones after it have the next seeds
/help               these lines
/quit               ends, as Ctrl-D does
//                  begins a text with a /
"""
WHOLE: dict[str, tuple[int, int | None]] = {  # the least and the most of each that is an integer
    "length": (1, MOST_TOKENS),
    "top-k": (0, None),
    "seed": (0, LARGEST_SEED),
}
SETTINGS = ("temperature", *WHOLE)


def converse(
    sampler: Sampler,
    *,
    seed: int,
    read: Callable[[str], str],
    write: Write,
    say: Write,
    undisturbed: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Go on from each line that `read` returns, until it raises EOFError or KeyboardInterrupt.

    Lines that begin with / change settings. Ctrl-C while text is written ends that text alone; a
    mistake in a prompt is said in a line. Text is written within `undisturbed`.
    """
    say(WELCOME)
    while True:
        try:
            line = read("> ")
        except (EOFError, KeyboardInterrupt):
            say("\n")
            return
        if line.split()[:1] == ["/quit"]:
            return
        try:
            if line.startswith("/") and not line.startswith("//"):
                sampler, seed, answer = change_setting(sampler, seed, line)
                say(answer)
                continue
            with undisturbed():
                write_stream(sampler, line.removeprefix("/"), seed=seed, write=write)
        except KeyboardInterrupt:
            say("\n")
        except NanoGPT2Error as error:
            say(f"{error}\n")
        seed += 1


def change_setting(sampler: Sampler, seed: int, line: str) -> tuple[Sampler, int, str]:
    """Return sampler and seed as the command `line` has them, and what to say of it."""
    command, *rest = line.split(maxsplit=1)
    name = command.removeprefix("/")
    if name not in SETTINGS:
        return sampler, seed, HELP if name == "help" else f"no command /{name}\n{HELP}"
    try:
        value = read_setting(name, "".join(rest).strip())
    except ConfigError as error:
        return sampler, seed, f"{error}\n"
    if name == "seed":
        seed = int(value)
    else:
        field = {"length": "max_new_tokens", "top-k": "top_k"}.get(name, name)
        sampler = sampler.changed(**{field: value})
    return sampler, seed, f"{name} {value}\n"


def read_setting(name: str, text: str) -> float:
    """Return the value of the command /`name`; ConfigError where `text` is none that it allows."""
    value: float | str
    try:
        value = int(text) if name in WHOLE else float(text)
    except ValueError:
        value = text
    if name in WHOLE:
        least, most = WHOLE[name]
        return whole_number(f"/{name}", value, least=least, most=most)
    fits, allowed = RANGES[name]
    if isinstance(value, str) or not (math.isfinite(value) and fits(value)):
        raise ConfigError(f"/{name}: found {value!r}; allowed: {allowed}")
    return value


def write_answers(
    sampler: Sampler,
    prompts: Sequence[str],
    *,
    seed: int,
    as_json: bool,
    write: Write,
    meter: Meter | None = None,
) -> None:
    """Write one sample for each prompt: whole texts, or JSON lines of prompt, text and seed.

    A line of `---` stands between whole texts.
    """
    texts = sampler.write_on(prompts, seed=seed, meter=meter)
    for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        answer = {"prompt": prompt, "text": text, "seed": seed + number}
        between = "---\n" if number and not as_json else ""
        whole = json.dumps(answer, ensure_ascii=False) if as_json else prompt + text
        write(f"{between}{whole}\n")
