"""A request for completions, checked: OpenAI's /v1/completions, and what it lacks.

Fields beyond OpenAI's: top_k, min_p, repetition_penalty, window, return_token_ids.
"""

import difflib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.decode.draw import Controls
from nanogpt2.sample.request import LARGEST_SEED, WINDOWS
from nanogpt2.serve.completions.errors import Refusal, unsupported, wrong
from nanogpt2.serve.completions.limits import Limits
from nanogpt2.tokens.normal import normalise

MOST_STOPS, LONGEST_STOP = 16, 1000  # stop texts, and characters of one
RANDOM_SEED = 2**53  # below which a seed is drawn: any program reads it back from JSON as it is
CONTROLS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
# What changes nothing at these values, and why others are refused.
ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "suffix": ((None, ""), "the models write on, and fill no gaps"),
    "best_of": ((None, 1), "ask for n answers and choose among them"),
    "frequency_penalty": ((None, 0), "repetition_penalty is what there is"),
    "presence_penalty": ((None, 0), "repetition_penalty is what there is"),
    "logit_bias": ((None, {}), "temperature, top_k, top_p and min_p are what there is"),
}
FIELDS = {
    *("model", "prompt", "max_tokens", "n", "stream", "stream_options", "logprobs", "echo"),
    *("stop", "seed", "user", "window", "return_token_ids", *CONTROLS, *ONLY),
}


@dataclass(frozen=True)
class Completion:
    """What is asked for: `n` answers to each of `prompts`, texts or token numbers."""

    model: str | None  # None: the first
    prompts: Sequence[str | Sequence[int]]
    max_tokens: int
    n: int
    controls: Controls
    seed: int  # of the first answer; the next have the next
    stop: Sequence[str]
    logprobs: int | None
    echo: bool
    stream: bool
    include_usage: bool
    window: str
    return_token_ids: bool

    @property
    def count(self) -> int:
        """How many answers there are."""
        return len(self.prompts) * self.n


def parse_completion(body: bytes, limits: Limits) -> Completion:
    """Return what `body` asks for; Refusal where it is not what it may be."""
    asked = _read_object(body)
    for name in asked.keys() - FIELDS:
        near = difflib.get_close_matches(name, FIELDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(FIELDS))}"
        raise Refusal(400, f"{name[:60]!r}: no such field; {hint}", name[:60], "unknown_field")
    for name, (allowed, why) in ONLY.items():
        if not _is_one_of(asked.get(name), allowed):
            raise unsupported(name, why)
    take = _Fields(asked)
    completion = Completion(
        model=take.text("model"),
        prompts=_prompts(asked.get("prompt")),
        max_tokens=take.whole("max_tokens", 16, 0, limits.tokens),
        n=take.whole("n", 1, 1, limits.choices),
        controls=_controls(asked),
        seed=take.whole("seed", secrets.randbelow(RANDOM_SEED), 0, LARGEST_SEED - limits.choices),
        stop=_stops(asked.get("stop")),
        logprobs=take.whole("logprobs", None, 0, limits.logprobs),
        echo=take.truth("echo"),
        stream=take.truth("stream"),
        include_usage=_includes_usage(asked.get("stream_options")),
        window=take.text("window") or WINDOWS[0],
        return_token_ids=take.truth("return_token_ids"),
    )
    take.text("user")
    if completion.window not in WINDOWS:
        raise wrong("window", completion.window, " or ".join(WINDOWS))
    if completion.count > limits.choices:
        found = f"{len(completion.prompts)} prompts, {completion.n} answers each"
        raise wrong("n", found, f"{limits.choices} answers of one request")
    most = max(limits.all_tokens, limits.tokens)
    if completion.count * completion.max_tokens > most:
        found = f"{completion.count} answers of {completion.max_tokens} tokens"
        raise wrong("max_tokens", found, f"{most} tokens in all answers")
    if not completion.max_tokens and not completion.echo:
        raise wrong("max_tokens", 0, "0 with echo alone: there is nothing to answer")
    return completion


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise Refusal(400, f"the body is no JSON that can be read: {why}", None, "json") from error
    if not isinstance(asked, dict):
        raise Refusal(400, "the body is JSON, but no object: {...}", None, "json")
    return asked


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _is_one_of(value: Any, allowed: Sequence[Any]) -> bool:
    return not isinstance(value, bool) and any(value == each for each in allowed)


class _Fields:
    """Takes fields by name; null counts as absent."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked

    def _take(self, name: str, fits: Callable[[Any], bool], allowed: str, absent: Any) -> Any:
        value = self.asked.get(name)
        if value is None:
            return absent
        if not fits(value):
            raise wrong(name, value, allowed)
        return value

    def text(self, name: str) -> Any:
        return self._take(name, lambda value: isinstance(value, str), "a text", None)

    def truth(self, name: str) -> Any:
        return self._take(name, lambda value: isinstance(value, bool), "true or false", False)

    def whole(self, name: str, absent: int | None, least: int, most: int) -> Any:
        return self._take(
            name,
            lambda value: type(value) is int and least <= value <= most,
            f"an integer from {least} to {most}",
            absent,
        )


def _controls(asked: dict[str, Any]) -> Controls:
    given = {name: asked[name] for name in CONTROLS if asked.get(name) is not None}
    for name, value in given.items():
        if type(value) not in (int, float):
            raise wrong(name, value, "a number")
    try:
        return Controls(**given)
    except ConfigError as error:
        param = str(error).partition(":")[0]
        raise wrong(param, given[param], str(error).rpartition("allowed: ")[2]) from error


def _prompts(prompt: Any) -> list[str | list[int]]:
    """Return the prompts of a text, several, token numbers, or several of these."""
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    if _is_list_of(prompt, int):
        return [prompt]
    if _is_list_of(prompt, str) or (
        _is_list_of(prompt, list) and all(_is_list_of(each, int) for each in prompt)
    ):
        return list(prompt)
    raise wrong("prompt", prompt, "a text, texts, token numbers, or lists of these, none empty")


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is kind for each in value)


def _stops(stop: Any) -> list[str]:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if (
        not isinstance(stops, list)
        or len(stops) > MOST_STOPS
        or not all(isinstance(text, str) and 0 < len(text) <= LONGEST_STOP for text in stops)
    ):
        allowed = f"a text, or up to {MOST_STOPS}, each of 1 to {LONGEST_STOP} characters"
        raise wrong("stop", stop, allowed)
    return [normalise(text) for text in stops]


def _includes_usage(options: Any) -> bool:
    if options is None:
        return False
    known = {"include_usage", "include_obfuscation"}
    if not isinstance(options, dict) or not options.keys() <= known:
        raise wrong("stream_options", options, '{"include_usage": true}')
    return bool(_Fields(options).truth("include_usage"))
