"""Ensembles: the mean of probabilities, wherever one model can stand."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from variants import warmed

from nanogpt2.__main__ import main
from nanogpt2.base.system.errors import CheckpointError
from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.ensemble.checkpoints import load_checkpoints
from nanogpt2.decode.ensemble.ensemble import Ensemble
from nanogpt2.evaluate.evaluate import evaluate_splits, evaluate_tokens
from nanogpt2.evaluate.memorisation import check_memorisation
from nanogpt2.evaluate.score import score_text
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.continuing import continue_tokens
from nanogpt2.sample.generate import generate, generate_tokens
from nanogpt2.sample.request import Request
from nanogpt2.sample.sample import Sampler
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer
from stages import evaluate as stage

OTHER: dict[str, object] = {
    "n_layer": 1,
    "n_embd": 24,
    "n_head": 3,
    "vocab_size": 70,
    "block_size": 20,
}
ROTARY: dict[str, object] = {"architecture": "modern"}
ALIKE: list[dict[str, object]] = [{}, {"n_layer": 1}]
GREEDY = Controls(temperature=0)


def make_models(tiny: Config, changes: Sequence[dict[str, object]]) -> list[GPT]:
    """Return models with weights far from their start, each with weights of its own."""
    models = [warmed(get_config({**tiny.to_dict(), **each})) for each in changes]
    for number, model in enumerate(models):
        with torch.no_grad():
            model.wte.weight.mul_(4 + number)
    return [model.eval() for model in models]


def mean_probabilities(models: Sequence[GPT], idx: Tensor, n_tokens: int) -> np.ndarray:
    """Return the mean of what each model gives the first tokens after `idx` (B, T), by numpy."""
    total = np.zeros((len(idx), n_tokens))
    for model in models:
        logits = model(idx)[:, -1, :n_tokens].detach().numpy().astype(np.float64)
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        total[:, : logits.shape[1]] += exponents / exponents.sum(axis=-1, keepdims=True)
    return total / len(models)


@pytest.mark.parametrize("changes", [[{}, OTHER], [ROTARY, OTHER, {"n_head": 1}]])
def test_the_loss_is_that_of_the_mean_probability(
    tiny: Config, changes: list[dict[str, object]]
) -> None:
    models = make_models(tiny, changes)
    tokens = np.random.default_rng(0).integers(64, size=60).astype(np.uint16)
    totals = evaluate_tokens(Ensemble(models), tokens, ByteTokenizer(), batch_size=3).totals
    nats, correct = 0.0, 0
    for at in range(1, 60):  # windows of 16 tokens side by side: the smallest block_size
        start = (at - 1) // 16 * 16
        context = torch.tensor(tokens[start:at].astype(np.int64))[None]
        (probabilities,) = mean_probabilities(models, context, 70)
        nats -= float(np.log(probabilities[tokens[at]]))
        correct += int(probabilities.argmax() == tokens[at])
    assert totals.nats == pytest.approx(nats, rel=1e-5)
    assert (totals.correct, totals.tokens) == (correct, 59)


@pytest.mark.parametrize(
    "changes",
    [ALIKE, [{}, OTHER], [{}, ROTARY], [ROTARY, ROTARY | {"block_size": 20}]],
    ids=["learned", "other shapes", "learned and rotary", "rotary, other windows"],
)
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_text_takes_the_largest_mean_also_past_the_block(
    tiny: Config, changes: list[dict[str, object]], use_cache: bool
) -> None:
    models = make_models(tiny, changes)
    request = Request([[1, 2, 3], [40]], [0, 1], 30, GREEDY, n_tokens=50, use_cache=use_cache)
    drawn = torch.cat([*generate_tokens(Ensemble(models), request)], dim=1)
    for prompt, row in zip(request.prompts, drawn.tolist(), strict=True):
        text = [*prompt]
        for token in row:
            window = torch.tensor([text[-16:]])
            (probabilities,) = mean_probabilities(models, window, 50)
            assert probabilities[token] > probabilities.max() - 1e-6
            text.append(token)


@pytest.mark.parametrize("changes", [ALIKE, [ROTARY, ROTARY | {"n_layer": 1}]])
@pytest.mark.parametrize("window", ["exact", "half"])
@pytest.mark.parametrize(
    "controls", [Controls(0.8, top_k=9), Controls(top_p=0.7), Controls(min_p=0.1)]
)
def test_a_model_twice_draws_what_it_draws_alone(
    tiny: Config, changes: list[dict[str, object]], window: str, controls: Controls
) -> None:
    """Rotary windows of one size slide in the caches."""
    for model in make_models(tiny, changes):
        alone, twice = (
            generate(each, torch.tensor([[5, 6], [7, 8]]), 40, controls=controls, seed=3,
                     window=window)
            for each in (model, Ensemble([model, model]))
        )  # fmt: skip
        assert torch.equal(alone, twice)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, whose steps are graphs")
@pytest.mark.parametrize("changes", [{}, ROTARY])
def test_a_model_twice_draws_what_it_draws_alone_on_a_gpu(
    tiny: Config, changes: dict[str, object]
) -> None:
    (model,) = make_models(tiny, [changes | {"block_size": 300}])
    alone, twice = (
        generate(each, torch.tensor([[5, 6], [7, 8]]), 400, controls=GREEDY, seed=3, window="half")
        for each in (model.cuda(), Ensemble([model, model]))
    )
    assert torch.equal(alone, twice)


def test_a_model_twice_has_the_figures_that_it_has_alone(tiny: Config) -> None:
    model, _ = make_models(tiny, ALIKE)
    tokens = np.random.default_rng(0).integers(64, size=500).astype(np.uint16)
    alone, twice = (
        evaluate_tokens(each, tokens, ByteTokenizer(), batch_size=7, stride=5)
        for each in (model, Ensemble([model, model]))
    )
    assert twice.totals.nats == pytest.approx(alone.totals.nats, rel=1e-6)
    assert twice.totals.correct == alone.totals.correct
    assert twice.positions == pytest.approx(alone.positions, rel=1e-5)


def test_texts_stream_and_score_as_those_of_one_model_do(tiny: Config) -> None:
    tokenizer = CharTokenizer("\n abcdefgh")
    ensemble = Ensemble(make_models(tiny, [{}, OTHER]))
    sampler = Sampler(ensemble, tokenizer, 30, Controls(repetition_penalty=1.2))
    texts = sampler.write_on(["abc", ""], seed=4)
    pieces = zip(*sampler.stream(["abc", ""], seed=4, chunk=1), strict=True)
    assert ["".join(parts) for parts in pieces] == texts
    assert sampler.write_on([""], seed=5) == texts[1:]
    scored = score_text(ensemble, tokenizer, "abcdefgh\n" * 9)
    assert len(scored.nats) == 81


def test_going_on_by_torchs_generator_draws_from_the_mean(tiny: Config) -> None:
    models = make_models(tiny, ALIKE)
    drawn, short = (
        continue_tokens(Ensemble(models), torch.tensor([[1, 2]]), n, temperature=0, n_tokens=50)
        for n in (12, 2)
    )
    assert torch.equal(drawn[:, :4], short)
    (probabilities,) = mean_probabilities(models, drawn[:, :-1], 50)
    assert int(probabilities.argmax()) == int(drawn[0, -1])


# --- Files ---


def write_model(path: str, model: GPT, tokenizer: Tokenizer | None) -> Path:
    save_checkpoint(path, model.state_dict(), model.config, tokenizer=tokenizer, origin={})
    return Path(path)


@pytest.fixture
def paths(tiny: Config, text: str) -> list[Path]:
    """Two models of the text in `data`, which the folder has."""
    Path("text.txt").write_text(text, encoding="utf-8")
    prepare(Path("text.txt"), Path("data"), tokenizer="char", vocab_size=64, fractions=(0.2, 0.2))
    tokenizer = CharTokenizer("".join(sorted(set(text))))
    models = make_models(tiny, [{}, OTHER])
    return [write_model(f"{n}.pt", model, tokenizer) for n, model in enumerate(models)]


def test_the_stage_evaluates_several_files_as_one_model(tiny: Config, paths: list[Path]) -> None:
    trained = load_checkpoints(paths, device="auto", tokenizer=Path("data/tokenizer.json"))
    result = evaluate_splits(trained, "data", batch_size=4)
    copied, _ = check_memorisation(trained, "data", tiny.evaluate)
    options = ["--config", "nano", "--data", "data", "--checkpoint", "0.pt", "--checkpoint", "1.pt"]
    done = CliRunner().invoke(stage.main, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    figures = json.loads(Path("metrics/eval.json").read_text(encoding="utf-8"))
    assert figures["val"] == result.figures["val"]
    assert figures["memorisation"]["samples"].keys() == copied["samples"].keys()
    losses = [
        evaluate_splits(
            load_checkpoints([path], device="cpu", tokenizer=Path("none")), "data", batch_size=4
        ).figures["val"]["loss"]
        for path in paths
    ]
    assert figures["val"]["loss"] <= np.mean(losses)  # by Jensen's inequality


def test_commands_take_several_files(paths: list[Path]) -> None:
    which = [word for path in paths for word in ("--checkpoint", str(path))]
    which += ["--device", "cpu"]
    options = ["--prompt", "the", "--max-new-tokens", "9", "--seed", "1"]
    done = CliRunner().invoke(main, ["generate", *which, *options])
    assert done.stdout.startswith("the")
    assert len(done.stdout) == len("the") + 9 + 1
    scored = CliRunner().invoke(main, ["score", "text.txt", *which])
    assert scored.stdout.startswith("loss ")


def test_files_of_different_tokenizers_are_named(tiny: Config, paths: list[Path]) -> None:
    (other,) = make_models(tiny, [{}])
    write_model("other.pt", other, CharTokenizer("abc"))
    line = (
        "0.pt and other.pt: trained with different tokenizers; allowed in an ensemble: models of"
        " one tokenizer"
    )
    with pytest.raises(CheckpointError, match=line):
        load_checkpoints([*paths, Path("other.pt")], device="cpu", tokenizer=Path("none"))
    options = ["--checkpoint", "0.pt", "--checkpoint", "other.pt", "--device", "cpu"]
    done = CliRunner().invoke(main, ["generate", *options, "--prompt", "the"])
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", f"{line}\n")


def test_files_without_a_tokenizer_have_that_of_the_data(tiny: Config, paths: list[Path]) -> None:
    (model,) = make_models(tiny, [{}])
    bare = write_model("bare.pt", model, None)
    data = Path("data/tokenizer.json")
    trained = load_checkpoints([*paths, bare], device="cpu", tokenizer=data)
    assert isinstance(trained.model, Ensemble)
    assert len(trained.model.members) == 3
    with pytest.raises(CheckpointError, match="the checkpoint holds no tokenizer: give"):
        load_checkpoints([bare, *paths], device="cpu", tokenizer=Path("none"))
