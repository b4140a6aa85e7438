"""The model in JavaScript computes what the model in Python does, on the weights of the page."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from engine import NODE, SHAPE, ask_pages
from torch import Tensor
from variants import VARIANTS, warmed

from nanogpt2.config.config import get_config
from nanogpt2.config.schema import load_schema
from nanogpt2.decode.draw import Controls
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request
from nanogpt2.serve.playground.cost import with_bits
from nanogpt2.serve.playground.page import Contents, make_page
from nanogpt2.tokens.normal import normalise
from nanogpt2.tokens.tokenizer import CharTokenizer, Tokenizer, train_tokenizer

pytestmark = pytest.mark.skipif(
    NODE is None, reason="node runs the page's scripts, and is not here"
)
CHARACTERS = CharTokenizer("".join(map(chr, range(0x21, 0x21 + 61))))  # fewer than the rows
MODELS: dict[str, dict[str, object]] = {
    **VARIANTS,
    "qwen3": {"architecture": "qwen3"},
    "sizes that four does not divide": {"architecture": "modern", "n_embd": 18, "n_head": 3},
    "learned positions, conv, shared": {"mlp_conv": 4, "n_kv_head": 1, "block_size": 15},
}
PROMPT = [5, 1, 60, 33, 8, 8, 0, 21, 13, 2]
LONG = PROMPT * 3  # past the block
COUNT = 24  # tokens, also past the block
ASKS: dict[str, dict[str, Any]] = {
    "exact": {"ids": PROMPT, "count": COUNT},
    "half": {"ids": PROMPT, "count": COUNT, "window": "half"},
    "long": {"ids": LONG, "count": 5},
    "plain": {"ids": PROMPT, "count": COUNT, "plain": True},
    "drawn": {"ids": PROMPT, "count": COUNT, "seed": 7,
              "controls": {"temperature": 0.9, "topK": 30, "topP": 0.8}},
    "looking": {"ids": PROMPT},
}  # fmt: skip


class Pair(NamedTuple):
    """A model with the page's weights, and what the page answers to each question."""

    model: GPT
    answers: dict[str, dict[str, Any]]


def write(path: Path, model: GPT, tokenizer: Tokenizer, bits: int) -> None:
    contents = Contents("a model", None, {}, None, bits)
    path.write_text(make_page(model, tokenizer, contents), encoding="utf-8")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Ask the pages of all models at once: starting node takes longer than what it does."""
    folder, models, jobs = tmp_path_factory.mktemp("pages"), [], []
    for number, values in enumerate(MODELS.values()):
        bits, path = (8, 16)[number % 2], folder / f"{number}.html"
        model = warmed(get_config({**SHAPE, **values})).eval()
        write(path, model, CHARACTERS, bits)
        models.append(with_bits(model, bits))
        jobs.append((path, list(ASKS.values())))
    answers = ask_pages(jobs)
    return {
        name: Pair(model, dict(zip(ASKS, answer, strict=True)))
        for name, model, answer in zip(MODELS, models, answers, strict=True)
    }


@pytest.fixture(params=list(MODELS))
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


def continue_greedily(model: GPT, ids: list[int], count: int, window: str) -> list[int]:
    return draw(model, ids, count, Controls(temperature=0), seed=0, window=window)


def draw(
    model: GPT, ids: list[int], count: int, controls: Controls, *, seed: int, window: str,
    n_tokens: int = CHARACTERS.size,
) -> list[int]:  # fmt: skip
    request = Request([ids], [seed], count, controls, window=window, n_tokens=n_tokens)
    return [int(token) for token in torch.cat(list(generate_tokens(model, request)), dim=1)[0]]


@torch.no_grad()
def logits_of(model: GPT, ids: list[int]) -> Tensor:
    """Return the logits (T, tokens) of the last block."""
    logits: Tensor = model(torch.tensor([ids[-model.config.block_size :]]))
    return logits[0, :, : CHARACTERS.size]


def test_every_value_that_the_schema_allows_for_a_part_of_the_model_is_among_them() -> None:
    configs = [get_config({**SHAPE, **values}).resolved() for values in MODELS.values()]
    for key in ("architecture", "positions", "norm", "mlp"):
        allowed = load_schema()["properties"][key]["enum"]
        assert {config[key] for config in configs} >= set(allowed) - {None}, key


@pytest.mark.parametrize("ask", ["exact", "long", "plain"])
def test_logits_are_those_of_python(pair: Pair, ask: str) -> None:
    answer = pair.answers[ask]
    kind = "plain JavaScript" if ask == "plain" else "WebAssembly SIMD"
    assert answer["name"] == kind
    expected = logits_of(pair.model, answer["ids"])[-1]
    found = torch.tensor(answer["logits"])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@pytest.mark.parametrize("ask", ["exact", "half", "long", "plain"])
def test_greedy_text_is_that_of_python_past_the_block_too(pair: Pair, ask: str) -> None:
    asked = ASKS[ask]
    window = asked.get("window", "exact")
    expected = continue_greedily(pair.model, asked["ids"], asked["count"], window)
    assert pair.answers[ask]["tokens"] == expected


def test_a_seed_draws_what_it_draws_in_python(pair: Pair) -> None:
    controls = Controls(temperature=0.9, top_k=30, top_p=0.8)
    expected = draw(pair.model, PROMPT, COUNT, controls, seed=7, window="exact")
    assert pair.answers["drawn"]["tokens"] == expected


def test_surprise_is_the_probability_in_bits(pair: Pair) -> None:
    bits = pair.answers["looking"]["bits"]
    likely = logits_of(pair.model, PROMPT).double().log_softmax(dim=-1)[:-1]
    expected = -likely.gather(1, torch.tensor(PROMPT[1:])[:, None])[:, 0] / torch.log(
        torch.tensor(2.0, dtype=torch.float64)
    )
    assert bits[0] is None
    torch.testing.assert_close(
        torch.tensor(bits[1:], dtype=torch.float64), expected, rtol=0, atol=1e-4
    )


def test_attention_is_that_of_each_layer_and_head(pair: Pair) -> None:
    expected = attention_of(pair.model, PROMPT)
    seen = pair.answers["looking"]["attention"]
    assert seen["first"] == 0
    torch.testing.assert_close(torch.tensor(seen["rows"]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", ["exact", "half"])
def test_attention_past_the_block_is_over_the_window_that_was_read(pair: Pair, window: str) -> None:
    answer, config = pair.answers[window], pair.model.config
    ids, seen = [*PROMPT, *answer["tokens"]], answer["attention"]
    length = config.block_size
    if config.positions == "learned":
        length = tokens_in_cache(config.block_size, window)
        expected = attention_of(pair.model, ids[-length:])
        torch.testing.assert_close(torch.tensor(seen["rows"]), expected, rtol=0, atol=1e-5)
    assert seen["first"] == len(ids) - length
    assert {len(row) for row in seen["rows"]} == {length}
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in seen["rows"])


def tokens_in_cache(block_size: int, window: str) -> int:
    """Return how many tokens a model with learned positions has before it in the end."""
    cached = len(PROMPT)
    for _ in range(COUNT):
        full = block_size if window == "exact" else block_size // 2
        cached = full if cached == block_size else cached + 1
    return cached


@torch.no_grad()
def attention_of(model: GPT, ids: list[int]) -> Tensor:
    """Return how much the last token attends to each, by layer and head: (layers * heads, T)."""
    found: list[Tensor] = []

    def look(q: Tensor, k: Tensor, v: Tensor, *, dropout: float) -> Tensor:
        keys = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scores = q[:, :, -1:] @ keys.mT / q.shape[-1] ** 0.5
        found.append(scores.softmax(dim=-1)[0, :, 0])
        return type(model.operators).attention(model.operators, q, k, v, dropout=dropout)

    operators = type(model.operators)()
    operators.attention = look  # type: ignore[method-assign]
    usual = model.operators
    model.use(operators)
    model(torch.tensor([ids]))
    model.use(usual)
    return torch.cat(found)


# --- What a page does not know ---

HEAD_OF_CONFIG = '"config":{'
UNKNOWN: dict[str, tuple[str, str, str]] = {  # what stands in the page, in its place, what is said
    "mlp": ('"mlp":"gelu"', '"mlp":"geglu"', "gelu, relu2, swiglu"),
    "norm": ('"norm":"layer"', '"norm":"deep"', "layer, rms"),
    "positions": ('"positions":"learned"', '"positions":"alibi"', "learned, rotary"),
    "qk_norm": ('"qk_norm":false', '"qk_norm":"l1"', "false, true"),
    "tied_head": ('"tied_head":true', '"tied_head":null', "false, true"),
    "mlp_conv": ('"mlp_conv":0', '"mlp_conv":"gated"', 'found "gated"; allowed: a number'),
    "logit_softcap": (',"logit_softcap":0.0', "", "found undefined; allowed: a number"),
    "a setting": (HEAD_OF_CONFIG, HEAD_OF_CONFIG + '"experts":4,', 'found "experts"; this page'),
    "h.1.attn.gate": ('"h.1.attn.c_proj.bias":', '"h.1.attn.gate":', "knows no such weights"),
    "wte.weight": ('"kind":"f16"', '"kind":"f8"', 'found "f8"; this page knows f16, i8'),
    "tokenizer": ('"name":"char"', '"name":"toString"', "this page knows char, byte, bpe"),
}


def test_a_page_names_what_it_does_not_know_and_computes_nothing(tmp_path: Path) -> None:
    model, jobs = warmed(get_config(SHAPE)).eval(), []
    write(tmp_path / "known.html", model, CHARACTERS, 16)
    page = (tmp_path / "known.html").read_text(encoding="utf-8")
    for number, (known, unknown, _) in enumerate(UNKNOWN.values()):
        assert known in page
        path = tmp_path / f"{number}.html"
        path.write_text(page.replace(known, unknown, 1), encoding="utf-8")
        jobs.append((path, [{"ids": PROMPT}]))
    asks: list[dict[str, Any]] = [{"ids": PROMPT, "window": "whole"}, {"ids": PROMPT}]
    jobs.append((tmp_path / "known.html", asks))
    *answers, (window, usual) = ask_pages(jobs)
    for (name, (_, _, said)), (answer,) in zip(UNKNOWN.items(), answers, strict=True):
        assert answer["error"].startswith(f"{name}"), answer
        assert said in answer["error"]
    assert window["error"] == 'window: found "whole"; this page knows exact, half'
    assert "error" not in usual


# --- Tokenizers ---

TEXT = "The cat's been near 100 mats.\n\n  \tWhy? They'll say: né, 東京 🙂!\n" * 9
HOSTILE = (
    "", " ", "\n", "a\r\nb\rc\x85d\u2028e", "\ufeffthe", "cafe\u0301 café", "  two  spaces  ",
    "tail   ", "\u00a0\u3000the\u200b", "it's 'll 've 'x", "x" * 300, "\x00\x1f</script>",
    "🙂👩‍👩‍👧", "東京the12三",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    extra = "".join(HOSTILE) + "\u00e9"
    return {
        "char": train_tokenizer("char", TEXT + normalise(extra), vocab_size=512),
        "byte": train_tokenizer("byte", TEXT, vocab_size=512),
        "bpe": train_tokenizer("bpe", TEXT, vocab_size=330, special=["<|endoftext|>"]),
    }


@pytest.fixture(scope="module")
def written(
    tokenizers: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], tuple[GPT, list[dict[str, Any]]]]:
    """Let a gpt2 and a modern model write with each tokenizer."""
    folder, models, jobs = tmp_path_factory.mktemp("texts"), {}, []
    asks: list[dict[str, Any]] = [{"text": text} for text in HOSTILE if text]
    for architecture in ("gpt2", "modern"):
        for name, tokenizer in tokenizers.items():
            config = {**SHAPE, "vocab_size": 512, "block_size": 32, "architecture": architecture}
            model = warmed(get_config(config)).eval()
            path = folder / f"{architecture}-{name}.html"
            write(path, model, tokenizer, 8)
            models[architecture, name] = with_bits(model, 8)
            jobs.append((path, [{"text": "The ", "count": 200}, *asks]))
    return {key: (models[key], answer) for key, answer in zip(models, ask_pages(jobs), strict=True)}


@pytest.mark.parametrize("name", ["char", "byte", "bpe"])
@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_200_greedy_tokens_are_those_of_python(
    architecture: str, name: str, written: Any, tokenizers: dict[str, Tokenizer]
) -> None:
    model, (answer, *_) = written[architecture, name]
    tokenizer = tokenizers[name]
    ids = tokenizer.encode("The ").tolist()
    greedy = Controls(temperature=0)
    size = tokenizer.size
    expected = draw(model, ids, 200, greedy, seed=0, window="exact", n_tokens=size)
    assert answer["tokens"] == expected
    if name == "char":
        assert answer["text"] == tokenizer.decode([*ids, *expected])


@pytest.mark.parametrize("name", ["char", "byte", "bpe"])
def test_texts_are_cut_into_the_same_tokens(
    name: str, written: Any, tokenizers: dict[str, Tokenizer]
) -> None:
    _, (_, *answers) = written["gpt2", name]
    for text, answer in zip([text for text in HOSTILE if text], answers, strict=True):
        assert answer["ids"] == tokenizers[name].encode(normalise(text)).tolist(), text


def test_characters_that_no_token_has_are_named(pairs: dict[str, Pair], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write(path, pairs["gpt2"].model, CHARACTERS, 16)
    ((answer,),) = ask_pages([(path, [{"text": "A é"}])])
    assert answer["error"].startswith('The model has never seen " ". It knows')
