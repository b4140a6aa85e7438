"""What an answer has gained, in OpenAI's form."""

from collections.abc import Sequence
from typing import Any

from nanogpt2.serve.batching.answer import Answer, Told
from nanogpt2.serve.batching.drawing import Likely
from nanogpt2.tokens.tokenizer import Tokenizer


class Names:
    """The texts by which tokens are told: of one that is no whole character, its bytes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.known: dict[int, str] = {}

    def __getitem__(self, token: int) -> str:
        if token not in self.known:
            content = self.tokenizer.token_bytes(token)
            try:
                name = content.decode("utf-8")
            except UnicodeDecodeError:
                name = "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
            self.known[token] = name
        return self.known[token]


def as_choice(answer: Answer, names: Names, *, with_ids: bool) -> dict[str, Any] | None:
    """Return what is new in OpenAI's form, or None where nothing is."""
    text, told = answer.collect()
    if not text and not told and answer.finish is None:
        return None
    choice: dict[str, Any] = {
        "text": text,
        "index": answer.index,
        "logprobs": None,
        "finish_reason": answer.finish,
    }
    if answer.drawing.logprobs is not None:
        choice["logprobs"] = _as_logprobs(told, names)
    if with_ids:
        choice["token_ids"] = [each.token for each in told]
        choice["top_token_ids"] = [each.likely and each.likely.others for each in told]
    return choice


def _as_logprobs(told: Sequence[Told], names: Names) -> dict[str, Any]:
    return {
        "tokens": [names[each.token] for each in told],
        "token_logprobs": [each.likely and each.likely.logprob for each in told],
        "top_logprobs": [each.likely and _as_top(each.token, each.likely, names) for each in told],
        "text_offset": [each.offset for each in told],
    }


def _as_top(token: int, likely: Likely, names: Names) -> dict[str, float]:
    """Return the likeliest tokens, and the one that was drawn."""
    top = {names[other]: logprob for other, logprob in likely.others}
    return {**top, names[token]: likely.logprob}
