"""Guesses of what follows change how quickly a text comes, and nothing in it."""

import pytest
import torch
from decoding import make_model
from variants import VARIANTS

from nanogpt2.config.config import Config
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.kernels.cpu import CompiledDecoder, CompiledWeights
from nanogpt2.model.gpt import GPT
from nanogpt2.sample import drafts
from nanogpt2.sample.drafts import LONG, LONGEST_PAUSE, PAUSE, SHORT, Drafts
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request

needs_compiler = pytest.mark.usefixtures("compiler")
BLOCK = {"block_size": 40}


@needs_compiler
@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("name", VARIANTS)
def test_several_tokens_at_once_have_the_bits_of_one_after_the_other(
    tiny: Config, name: str, int8: bool
) -> None:
    weights = CompiledWeights(make_model(tiny, name, **BLOCK), n_tokens=None, int8=int8)
    single, several = (CompiledDecoder(weights, rows=1) for _ in range(2))
    idx = torch.randint(60, (40,), generator=torch.Generator().manual_seed(0))
    for decoder in (single, several):
        decoder.encode(idx[:11], 0)
    steps = [single.step(idx[[at]], torch.tensor([at]))[0] for at in range(11, 40)]
    read = [several.read_on(idx[11:13], 11), several.read_on(idx[13:29], 13)]
    several.read_on(torch.full((11,), 3), 29)  # guesses that do not come true leave nothing behind
    read.append(several.read_on(idx[29:], 29))
    assert torch.equal(torch.cat(read), torch.stack(steps))


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let any model take guesses, and return how long each was that is checked."""
    lengths: list[int] = []
    read_on = CompiledDecoder.read_on

    def noted(decoder: CompiledDecoder, tokens: torch.Tensor, position: int) -> torch.Tensor:
        lengths.append(len(tokens) - 1)
        return read_on(decoder, tokens, position)

    monkeypatch.setattr(CompiledDecoder, "read_on", noted)
    for name, value in {"LEAST_WEIGHTS": 0, "BETWEEN": 0, "SIZES": (2, 1)}.items():
        monkeypatch.setattr(drafts, name, value)
    return lengths


def text(
    model: GPT, prompt: list[int], controls: Controls, window: str, *, guessing: bool
) -> list[int]:
    request = Request([prompt], [5], 90, controls, window=window, drafts=guessing)
    return torch.cat(list(generate_tokens(model, request)), dim=1)[0].tolist()


@needs_compiler
@pytest.mark.parametrize("window", ["half", "exact"])
@pytest.mark.parametrize(
    "controls", [Controls(temperature=0), Controls(0.2), Controls(0.8, 9, 0.9, 0.01)], ids=str
)
@pytest.mark.parametrize("name", ["gpt2", "modern, conv", "modern, some"])
def test_a_text_is_the_same_with_guesses(
    tiny: Config, name: str, controls: Controls, window: str, checked: list[int]
) -> None:
    model = make_model(tiny, name, **BLOCK)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8] * 2
    plain = text(model, prompt, controls, window, guessing=False)
    assert not checked
    assert text(model, prompt, controls, window, guessing=True) == plain
    assert checked
    assert max(checked) <= LONG


@needs_compiler
def test_what_cannot_be_checked_is_not_guessed(tiny: Config, checked: list[int]) -> None:
    model = make_model(tiny, "gpt2", **BLOCK)
    prompt = [1, 2, 3, 4, 5, 6, 7, 8] * 2
    text(model, prompt, Controls(repetition_penalty=1.2), "half", guessing=True)
    request = Request([prompt, prompt], [1, 2], 10)  # two samples
    list(generate_tokens(model, request))
    assert not checked


@pytest.fixture
def decoder(tiny: Config) -> CompiledDecoder:
    return CompiledDecoder(CompiledWeights(make_model(tiny, "gpt2"), n_tokens=None), rows=1)


@needs_compiler
def test_a_guess_is_what_followed_the_last_time(decoder: CompiledDecoder) -> None:
    known = Drafts([1, 2, 3, 4, 9, 8, 7, 6, 5, 1, 2, 3], decoder)
    assert known.guess(15) == []  # three tokens are not enough
    known.add([4])
    assert known.guess(15) == [9, 8, 7]
    assert known.guess(2) == [9, 8]
    assert Drafts([1, 2] * 5, decoder).guess(15) == [1, 2, 1]  # and on as it went
    assert Drafts([1, 2, 3], decoder).guess(15) == []


@needs_compiler
def test_guesses_grow_where_they_come_true_and_pause_where_they_do_not(
    decoder: CompiledDecoder,
) -> None:
    known, lengths = Drafts([1, 2] * 40, decoder), []
    for _ in range(4):
        guess = known.guess(LONG)
        lengths.append(len(guess))
        assert known.learn(guess, [*guess, 5]) == len(guess)
    assert lengths == [SHORT, 2 * SHORT + 1, LONG, LONG]
    for _ in range(2):  # by eight tokens, and by four
        guess = known.guess(LONG)
        assert known.learn(guess, [9] * len(guess)) == 0
    assert known.guess(LONG) == []
    known.add([1, 2] * (PAUSE // 2))
    assert len(known.guess(LONG)) == SHORT
    for _ in range(20):
        known.learn([1], [2])
    assert max(known.pauses) == LONGEST_PAUSE
