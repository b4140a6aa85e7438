"""Generation: the cache changes the speed and nothing else."""

import gc
import math
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.decoder import Decoder, ModuleDecoder
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.kernels.cpu import CompiledDecoder, CompiledWeights
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate, generate_tokens
from nanogpt2.sample.request import Request

GREEDY = Controls(temperature=0)


def make_compiled(model: GPT, *, rows: int, n_tokens: int | None) -> Decoder:
    return CompiledDecoder(CompiledWeights(model, n_tokens=n_tokens), rows=rows)


DECODERS = [make_compiled, ModuleDecoder]


def lively(config: Config, *, seed: int = 0) -> GPT:
    """Return a model whose weights, norms and biases too, are far from their start."""
    model = GPT(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return model


@pytest.fixture(params=[0])
def model(tiny: Config, request: pytest.FixtureRequest) -> GPT:
    return lively(get_config({**tiny.to_dict(), "mlp_conv": request.param}))


mixing_tokens_too = pytest.mark.parametrize("model", [0, 4], indirect=True)


def logits_of(decoder: Decoder, idx: Tensor, prompt_lengths: list[int], steps: int) -> Tensor:
    """Return the logits after each row's prompt and `steps` more tokens of `idx`."""
    lengths = torch.tensor(prompt_lengths)
    for row, length in enumerate(prompt_lengths):
        logits = decoder.encode(idx[row, :length], row)
    for step in range(steps):
        logits = decoder.step(idx[torch.arange(len(idx)), lengths + step], lengths + step)
    return logits


@pytest.mark.parametrize("make", DECODERS)
@pytest.mark.parametrize("lengths", [[1, 1, 1], [7, 2, 10]])
@pytest.mark.parametrize("bias", [True, False])
def test_cached_logits_are_those_of_the_whole_text(
    tiny: Config, make: Callable[..., Decoder], lengths: list[int], bias: bool
) -> None:
    model = lively(Config(**{**vars(tiny), "bias": bias}))
    idx = torch.randint(64, (3, 16))
    with torch.inference_mode():
        decoder = make(model, rows=3, n_tokens=50)
        logits = logits_of(decoder, idx, lengths, steps=6)
        for row, length in enumerate(lengths):
            expected = model(idx[row : row + 1, : length + 6])[0, -1, :50]
            torch.testing.assert_close(logits[row], expected, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(
            decoder.last_logits(idx), model(idx)[:, -1, :50], atol=2e-5, rtol=1e-5
        )


@mixing_tokens_too
@pytest.mark.parametrize("make", DECODERS)
def test_a_copied_row_goes_on_as_its_source(model: GPT, make: Callable[..., Decoder]) -> None:
    with torch.inference_mode():
        decoder = make(model, rows=4, n_tokens=None)
        decoder.encode(torch.tensor([4, 5, 6]), 1)
        decoder.copy_row(1, [0, 3], 3)
        logits = decoder.step(torch.tensor([7, 7, 7, 7]), torch.tensor([3, 3, 0, 3]))
    torch.testing.assert_close(logits[0], logits[1])
    torch.testing.assert_close(logits[3], logits[1])


def test_a_cache_is_given_back_without_the_collector(model: GPT) -> None:
    gc.disable()
    try:
        decoder = ModuleDecoder(model, rows=1, n_tokens=None)
        with torch.inference_mode():
            decoder.encode(torch.tensor([4, 5, 6]), 0)
        kept = weakref.ref(decoder.cache.layers[0])
        del decoder
        assert kept() is None
    finally:
        gc.enable()


def test_greedy_tokens_are_those_without_a_cache_for_100_prompts(model: GPT) -> None:
    """Prompts of 1 to 24 tokens, of which block_size is 16, in a batch of unequal lengths."""
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 25, (100,), generator=generator).tolist()
    prompts = [torch.randint(64, (n,), generator=generator).tolist() for n in lengths]
    tokens = [
        torch.cat(list(generate_tokens(model, request)), dim=1)
        for request in (
            Request(prompts, range(100), 14, GREEDY),
            Request(prompts, range(100), 14, GREEDY, use_cache=False),
        )
    ]
    assert torch.equal(*tokens)


def test_greedy_tokens_are_those_of_the_model_itself(model: GPT) -> None:
    idx = torch.randint(64, (2, 5))
    expected = model.generate(idx, 40, temperature=0)
    assert torch.equal(generate(model, idx, 40, controls=GREEDY, seed=0), expected)


@mixing_tokens_too
@pytest.mark.parametrize(
    "controls",
    [
        Controls(),
        Controls(temperature=0.7, top_k=9),
        Controls(top_p=0.8, min_p=0.01),
        Controls(repetition_penalty=1.3),
    ],
)
def test_a_seed_gives_its_text_in_any_batch_with_or_without_the_cache(
    model: GPT, controls: Controls
) -> None:
    idx = torch.randint(64, (5, 3))
    together = generate(model, idx, 30, controls=controls, seed=7)
    assert torch.equal(
        generate(model, idx, 30, controls=controls, seed=7, use_cache=False), together
    )
    for row in range(5):
        alone = generate(model, idx[row : row + 1], 30, controls=controls, seed=7 + row)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_size_of_chunks_does_not_change_the_text(model: GPT, chunk: int) -> None:
    prompts = [[1, 2, 3], [4]]
    for window in ("exact", "half"):
        expected = Request(prompts, [1, 2], 40, window=window)
        request = Request(prompts, [1, 2], 40, window=window, chunk=chunk)
        texts = [torch.cat(list(generate_tokens(model, r)), dim=1) for r in (expected, request)]
        assert torch.equal(*texts)


@mixing_tokens_too
def test_half_a_window_is_exact_up_to_the_block_and_then_reads_its_last_half(model: GPT) -> None:
    idx = torch.randint(64, (1, 4))
    text = generate(model, idx, 30, controls=GREEDY, seed=0, window="half")[0]
    assert torch.equal(text[:17], model.generate(idx, 13, temperature=0)[0])
    start = 0  # of what the model sees at each length
    for length in range(4, 34):
        if length - start > 16:
            start = length - 8
        expected = model(text[None, start:length])[0, -1].argmax()
        assert text[length] == expected


@mixing_tokens_too
@pytest.mark.parametrize("window", ["exact", "half"])
def test_a_prompt_longer_than_the_block_counts_with_its_end(model: GPT, window: str) -> None:
    idx = torch.randint(64, (1, 40))
    text = generate(model, idx, 1, controls=GREEDY, seed=0, window=window)
    assert text[0, -1] == model(idx[:, -16:])[0, -1].argmax()


def test_drawn_tokens_follow_the_softmax_over_20_000_draws(model: GPT) -> None:
    idx = torch.zeros(1, 4, dtype=torch.long)
    expected = (model(idx)[0, -1] / 1.5).softmax(-1).detach()
    request = Request([[0] * 4] * 20_000, range(20_000), 1, Controls(temperature=1.5))
    (drawn,) = generate_tokens(model, request)
    counts = torch.bincount(drawn[:, 0], minlength=64).float()
    chi_square = ((counts - 2e4 * expected) ** 2 / (2e4 * expected)).sum().item()
    assert chi_square < 63 + 5 * math.sqrt(2 * 63)  # 5 standard deviations above its mean


def test_no_new_tokens_is_the_prompt_and_training_goes_on(model: GPT) -> None:
    model.train()
    idx = torch.randint(64, (2, 3))
    assert torch.equal(generate(model, idx, 0, controls=GREEDY, seed=0), idx)
    generate(model, idx, 2, controls=GREEDY, seed=0)
    assert model.training


def test_an_unknown_window_is_refused() -> None:
    with pytest.raises(ConfigError, match="window: found whole; allowed: exact, half"):
        Request([[0]], [0], 1, window="whole")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_graph_draws_what_the_model_draws(tiny: Config) -> None:
    model = lively(tiny).cuda()
    idx = torch.randint(64, (3, 2), device="cuda")
    expected = model.generate(idx, 30, temperature=0)
    assert torch.equal(generate(model, idx, 30, controls=GREEDY, seed=0), expected)
