"""What one request leaves to the next: a decoder and tensors, and nothing of its text."""

from collections.abc import Iterator
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from nanogpt2.base.system.errors import DataError
from nanogpt2.config.config import Config
from nanogpt2.decode.decoder import Decoder, MakeDecoder, ModuleDecoder
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.kernels.choose import prepare
from nanogpt2.model.gpt import GPT
from nanogpt2.sample import steps
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request
from nanogpt2.sample.steps import Steps

PENALTY = Controls(repetition_penalty=1.5)


class Counted:
    """Makes decoders, and counts them."""

    def __init__(self, make: MakeDecoder) -> None:
        self.make, self.count = make, 0

    def __call__(self, *, rows: int) -> Decoder:
        self.count += 1
        return self.make(rows=rows)


@pytest.fixture
def model(tiny: Config) -> GPT:
    model = GPT(tiny).eval()
    for weight in model.parameters():
        weight.data += 0.3 * torch.randn(weight.shape)
    return model


@pytest.fixture(params=["quick", "modules"])
def makes(request: pytest.FixtureRequest, model: GPT) -> Counted:
    modules = partial(ModuleDecoder, model, n_tokens=None)
    return Counted(prepare(model) if request.param == "quick" else modules)


def written(chunks: Iterator[Tensor]) -> list[list[int]]:
    tokens: list[list[int]] = torch.cat(list(chunks), dim=1).tolist()
    return tokens


def alone(model: GPT, makes: Counted, *requests: Request) -> list[list[list[int]]]:
    """Return what each request writes with a decoder that no other has had."""
    return [written(generate_tokens(model, each, Counted(makes.make))) for each in requests]


@pytest.mark.parametrize("window", ["exact", "half"])
@pytest.mark.parametrize("controls", [Controls(), PENALTY], ids=["plain", "penalty"])
def test_requests_of_one_kind_share_a_decoder_and_write_what_each_writes_alone(
    model: GPT, makes: Counted, controls: Controls, window: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "FEWEST", 32)
    requests = [
        Request([[1, 2, 3], [4]], [1, 2], 30, controls, window=window),
        Request([[9] * 20, [5, 6]], [3, 4], 7, controls, window=window),
        Request([[1], [2]], [5, 6], 1, controls, window=window),
        Request([[1], [2]], [5, 6], 40, controls, window=window),  # more than there is room for
    ]
    expected = alone(model, makes, *requests)
    assert [written(generate_tokens(model, request, makes)) for request in requests] == expected
    assert makes.count == 2


def test_requests_of_other_kinds_have_decoders_of_their_own(model: GPT, makes: Counted) -> None:
    kinds = [
        Request([[1]], [1], 3),
        Request([[1], [1]], [1, 2], 3),
        Request([[1]], [1], 3, chunk=2),
        Request([[1]], [1], 3, PENALTY),
    ]
    for request in kinds:
        assert [written(generate_tokens(model, request, makes))] == alone(model, makes, request)
    assert makes.count == len(kinds)


def test_two_at_once_share_nothing(model: GPT, makes: Counted) -> None:
    requests = Request([[1, 2]], [1], 30, chunk=3), Request([[7, 8]], [2], 30, chunk=3)
    expected = alone(model, makes, *requests)
    both = zip(*(generate_tokens(model, request, makes) for request in requests), strict=True)
    parts = zip(*both, strict=True)
    assert [written(iter(part)) for part in parts] == expected
    assert makes.count == 2


def test_one_that_is_dropped_on_its_way_leaves_nothing_of_its_text(
    model: GPT, makes: Counted
) -> None:
    request = Request([[1, 2, 3]], [1], 30, PENALTY, chunk=4)
    chunks = generate_tokens(model, request, makes)
    next(chunks), next(chunks)
    del chunks
    again = Request([[9]], [2], 30, PENALTY, chunk=4)
    assert [written(generate_tokens(model, again, makes))] == alone(model, makes, again)
    assert makes.count == 1


def test_what_a_request_that_fails_has_held_is_given_back(
    model: GPT, makes: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request([[1, 2, 3]], [1], 30)
    list(generate_tokens(model, request, makes))
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "take", Mock(side_effect=torch.OutOfMemoryError("out of memory")))
        with pytest.raises(torch.OutOfMemoryError):
            list(generate_tokens(model, request, makes))
    assert makes.count == 1
    assert makes not in steps._kept
    list(generate_tokens(model, request, makes))
    assert makes.count == 2


def test_a_prompt_of_one_token_is_read_by_the_graph_of_an_earlier_request(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU a step itself stands for its graph."""
    monkeypatch.setattr(ModuleDecoder, "begins_with_step", True)
    makes, calls = Counted(partial(ModuleDecoder, model, n_tokens=None)), 0

    def capture(own: Steps) -> Tensor:
        nonlocal calls
        calls += 1
        return own.step()

    def serves(own: Steps, _: Request) -> bool:
        own.graphs[16] = partial(capture, own)
        return True

    requests = Request([[3]], [1], 12), Request([[4]], [2], 12)
    expected = alone(model, makes, *requests)
    monkeypatch.setattr(Steps, "serves", serves)
    assert [written(generate_tokens(model, each, makes)) for each in requests] == expected
    assert calls == 12  # of the second, whose first token is among them
    model.wte.weight.data.fill_(torch.nan)
    with pytest.raises(DataError, match="not numbers"):
        written(generate_tokens(model, requests[0], makes))
