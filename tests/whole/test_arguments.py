"""Arguments of the library: one error of ours each, or taken as people mean them."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, random_split

import nanogpt2
from nanogpt2.base.system.errors import ConfigError, DataError, DeviceError, NanoGPT2Error
from nanogpt2.commands.shared.unfinished import list_runs, prune_runs
from nanogpt2.config.config import Config, get_config, use_preset
from nanogpt2.decode.draw import Controls
from nanogpt2.evaluate.evaluate import evaluate_splits, evaluate_tokens
from nanogpt2.evaluate.memorisation import check_memorisation
from nanogpt2.evaluate.score import score_text
from nanogpt2.model.checkpoint import load_checkpoint, save_checkpoint, save_trained, tokenizer_of
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate
from nanogpt2.sample.sample import Sampler, read_prompt_file, read_prompts, write_samples
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.text.reading.corpus import read_corpus
from nanogpt2.tokens.dataset import CharDataset, TokenDataset, get_batch, load_split
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer
from nanogpt2.train.trainer import Trainer

IDX = torch.zeros(1, 3, dtype=torch.long)


@pytest.fixture
def model(tiny: Config) -> GPT:
    return GPT(tiny)


# --- Going on from tokens ---

BAD_IDX: list[tuple[Any, str]] = [
    (torch.zeros(1, 0, dtype=torch.long), r"idx: found the shape \(1, 0\); allowed: \(B, T\)"),
    (torch.zeros(0, 3, dtype=torch.long), r"idx: found the shape \(0, 3\)"),
    (torch.zeros(3, dtype=torch.long), r"idx: found the shape \(3,\)"),
    (torch.zeros(1, 3), "idx: found torch.float32; allowed: integers"),
    (torch.zeros(1, 3, dtype=torch.bool), "idx: found torch.bool"),
    (torch.tensor([[64]]), "found the token 64; allowed: from 0 to 63"),
    (torch.tensor([[-1, 2]]), "found the token -1; allowed: from 0 to 63"),
    ("To be", "idx: found 'To be'; allowed: token numbers"),
    ([[1], [2, 3]], "idx: found "),
    (None, "idx: found None"),
]
BAD_KNOBS: list[tuple[dict[str, Any], str]] = [
    ({"top_k": -1}, "top_k: found -1; allowed: null or an integer, at least 0"),
    ({"top_k": 2.5}, "top_k: found 2.5"),
    ({"top_k": True}, "top_k: found True"),
    ({"temperature": -1.0}, "temperature: found -1.0; allowed: a finite number, at least 0"),
    ({"temperature": float("nan")}, "temperature: found nan"),
    ({"temperature": float("inf")}, "temperature: found inf"),
    ({"temperature": None}, "temperature: found None"),
    ({"temperature": "0.8"}, "temperature: found 0.8"),
    ({"max_new_tokens": -1}, "max_new_tokens: found -1; allowed: an integer, from 0 to 10000000"),
    ({"max_new_tokens": 10**12}, "max_new_tokens: found 1000000000000"),
    ({"max_new_tokens": 2.0}, "max_new_tokens: found 2.0"),
    ({"n_tokens": 0}, "n_tokens: found 0; allowed: an integer, from 1 to 64"),
    ({"n_tokens": 65}, "n_tokens: found 65"),
    ({"generator": 7}, "generator: found int; allowed: null or a torch.Generator on cpu"),
]


@pytest.mark.parametrize(("idx", "line"), BAD_IDX, ids=range(len(BAD_IDX)))
@pytest.mark.parametrize("training", [True, False])
def test_tokens_that_are_none_are_refused(model: GPT, idx: Any, line: str, training: bool) -> None:
    model.train(training)
    draws: list[Callable[[], object]] = [
        lambda: model.generate(idx, 4),
        lambda: generate(model, idx, 4, controls=Controls(), seed=1),
    ]
    for draw in draws:
        with pytest.raises(DataError, match=f"^{line}"):
            draw()
        assert model.training == training


@pytest.mark.parametrize(("knobs", "line"), BAD_KNOBS, ids=str)
def test_knobs_out_of_range_are_refused(model: GPT, knobs: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        model.generate(IDX, **{"max_new_tokens": 4, **knobs})
    assert model.training


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"seed": -1}, "seed: found -1; allowed: an integer, at least 0"),
        ({"seed": 1.5}, "seed: found 1.5"),
        ({"seed": 2**64}, "seed: found 18446744073709551616"),
        ({"max_new_tokens": -3}, "max_new_tokens: found -3"),
        ({"window": None}, "window: found None; allowed: exact, half"),
        ({"controls": None}, "controls: found None; allowed"),
    ],
    ids=str,
)
def test_knobs_of_seeded_generation_are_refused(
    model: GPT, knobs: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        generate(model, IDX, **{"max_new_tokens": 4, "controls": Controls(), "seed": 1, **knobs})


def test_top_k_0_is_off_as_in_transformers(model: GPT) -> None:
    def draw(top_k: int | None) -> Tensor:
        return model.generate(IDX, 20, 2.0, top_k, generator=torch.Generator().manual_seed(1))

    assert torch.equal(draw(0), draw(None))
    assert not torch.equal(draw(1), draw(None))
    seeded = [generate(model, IDX, 20, controls=Controls(top_k=k), seed=1) for k in (0, None)]
    assert torch.equal(*seeded)


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int16, np.array, list])
def test_integers_of_any_kind_are_tokens(model: GPT, kind: Any) -> None:
    idx = IDX.to(kind) if isinstance(kind, torch.dtype) else kind(IDX.tolist())
    found, expected = model.generate(idx, 4, 0), model.generate(IDX, 4, 0)
    assert torch.equal(found, expected)
    assert torch.equal(generate(model, idx, 4, controls=Controls(0), seed=1), expected)


def test_the_smallest_temperature_takes_the_most_likely_token(model: GPT) -> None:
    greedy = model.generate(IDX, 9, 0)
    for temperature in (1e-30, 1e-300, 5e-324):
        assert torch.equal(model.generate(IDX, 9, temperature), greedy)


@pytest.mark.parametrize("penalty", [1e-300, 5e-324, 1e300])
def test_a_penalty_of_any_size_draws_a_token(model: GPT, penalty: float) -> None:
    drawn = generate(model, IDX, 9, controls=Controls(repetition_penalty=penalty), seed=1)
    assert 0 <= drawn.min() <= drawn.max() < 64


def test_a_model_whose_weights_are_not_finite_says_so(model: GPT) -> None:
    with torch.no_grad():
        model.wte.weight[0, 0] = float("nan")
    draws: list[Callable[[], object]] = [
        lambda: model.generate(IDX, 4),
        lambda: generate(model, IDX, 4, controls=Controls(), seed=1),
    ]
    for draw in draws:
        with pytest.raises(DataError, match="its weights are not finite"):
            draw()


def test_a_wrapped_model_goes_on_too(model: GPT) -> None:
    wrapped = nn.DataParallel(model)
    assert torch.equal(
        nanogpt2.continue_tokens(wrapped, IDX, 4, temperature=0), model.generate(IDX, 4, 0)
    )
    with pytest.raises(ConfigError, match="a GPT is needed, and this is a Linear"):
        nanogpt2.continue_tokens(nn.Linear(1, 1), IDX, 4)


# --- The caller's modes and random states ---


def random_states() -> list[Any]:
    return [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()]


USES: dict[str, Callable[[GPT], object]] = {
    "generate": lambda model: model.generate(IDX, 9, generator=torch.Generator().manual_seed(1)),
    "seeded": lambda model: generate(model, IDX, 9, controls=Controls(), seed=1),
    "GPT": lambda model: GPT(model.config),
    "score": lambda model: score_text(model, CharTokenizer("ab"), "abab"),
    "evaluate": lambda model: evaluate_tokens(
        model, np.zeros(40, np.uint16), CharTokenizer("ab"), batch_size=2
    ),
    "sampler": lambda model: Sampler(model, CharTokenizer("ab"), 5).write_on(["a"], seed=1),
    "train": lambda model: Trainer(model, model.config).train(
        TokenDataset(np.arange(60), 16), TokenDataset(np.arange(60), 16)
    ),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("compiled", [True, False])
def test_modes_and_random_states_are_the_callers(tiny: Config, use: str, compiled: bool) -> None:
    model = GPT({**tiny.to_dict(), "dropout": 0.1, "compile": compiled})
    if use != "train":  # which trains all of it
        model.h[1].eval()  # a caller's own choice among the modules
    before = random_states(), [module.training for module in model.modules()]
    USES[use](model)
    assert (random_states(), [module.training for module in model.modules()]) == before


# --- Batches ---


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_tokens_and_targets_of_any_integers_count(model: GPT, dtype: torch.dtype) -> None:
    idx = torch.arange(32).view(2, 16)
    logits, loss = model(idx.to(dtype), idx.to(dtype))
    assert torch.equal(logits, model(idx))
    assert torch.equal(loss, model(idx, idx)[1])
    assert torch.equal(model.loss(idx.to(dtype), idx.to(dtype)), model.loss(idx, idx))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    ("idx", "targets", "line"),
    [
        (torch.tensor([[64]]), IDX[:, :1], "idx: found from 64 to 64; allowed: from 0 to 63"),
        (torch.tensor([[-1]]), IDX[:, :1], "idx: found from -1 to -1"),
        (IDX, IDX + 64, "targets: found from 64 to 64; allowed: from 0 to 63, or -1"),
        (IDX, IDX - 100, "targets: found from -100 to -100; allowed: from 0 to 63, or -1"),
        (IDX, IDX[:, :2], r"targets: found the shape \(1, 2\); allowed: \(1, 3\), as idx"),
        (IDX, IDX.float(), "targets: found torch.float32; allowed: integers"),
        (IDX.float(), IDX, "idx: found torch.float32; allowed: integers"),
        (IDX[0], IDX[0], r"idx: found the shape \(3,\); allowed: \(B, T\)"),
        (IDX[:, :0], IDX[:, :0], r"idx: found the shape \(1, 0\)"),
        (IDX.tolist(), IDX, "idx: found list; allowed: a tensor of integers"),
        (torch.zeros(1, 17, dtype=torch.long), IDX, "17 tokens are more than block_size 16"),
    ],
)
def test_a_batch_that_is_none_is_refused(
    tiny: Config, idx: Any, targets: Any, line: str, compiled: bool
) -> None:
    config = get_config(tiny, compile=compiled)
    model = Trainer(GPT(config), config).model
    for compute in (model, model.loss):
        with pytest.raises(DataError, match=f"^{line}"):
            compute(idx, targets)


# --- Datasets ---


class Endless(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter([])


class Pairs:
    """A dataset of one item, `length` times."""

    def __init__(self, item: Any, length: int = 9) -> None:
        self.item, self.length = item, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.item


ROW = torch.zeros(16, dtype=torch.long)
WHOLE = TokenDataset(np.arange(60), 16)
BAD_DATASETS: list[tuple[Any, str]] = [
    (DataLoader(WHOLE, batch_size=4), "found a DataLoader; allowed: a dataset, such as its"),
    (Endless(), "found Endless; allowed: dataset"),
    (iter([]), "found list_iterator"),
    ("To be, or not to be", "found str"),
    ({"idx": 1}, "found dict"),
    ([], "found an empty dataset; allowed: at least one window"),
    (Pairs((ROW, ROW), length=0), "found an empty dataset"),
    (TokenDataset(np.arange(60), 17), "found windows of 17 tokens; allowed: at most block_size 16"),
    (TokenDataset(np.arange(65), 16), "vocab_size: found 64; allowed: at least 65"),
    (Pairs(ROW), "an item of a dataset: found "),
    (Pairs((ROW, ROW[:3])), "an item of a dataset: found "),
    (Pairs((ROW.float(), ROW)), "an item of a dataset: found torch.float32"),
    (Pairs((ROW[:0], ROW[:0])), "an item of a dataset: found "),
    (Pairs(({"idx": 1}, ROW)), "an item of a dataset: found tuple"),
    (Pairs((ROW + 64, ROW)), "idx: found from 64 to 64; allowed: from 0 to 63"),
]


@pytest.mark.parametrize(("dataset", "line"), BAD_DATASETS, ids=range(len(BAD_DATASETS)))
def test_a_dataset_that_is_none_is_refused(tiny: Config, dataset: Any, line: str) -> None:
    for pair in ((dataset, WHOLE), (WHOLE, dataset)):
        with pytest.raises(NanoGPT2Error, match=line):
            Trainer(GPT(tiny), tiny).train(*pair)


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, np.int32])
def test_a_dataset_may_have_integers_of_any_kind(tiny: Config, kind: Any) -> None:
    is_torch = isinstance(kind, torch.dtype)
    pairs = [
        tuple(part.to(kind) if is_torch else part.numpy().astype(kind) for part in WHOLE[i])
        for i in range(len(WHOLE))
    ]
    plain = [WHOLE[i] for i in range(len(WHOLE))]
    found, expected = (
        Trainer(GPT(tiny), tiny).train(each, each)  # type: ignore[arg-type]
        for each in (pairs, plain)
    )
    assert found.history == expected.history


def test_windows_of_two_lengths_are_refused() -> None:
    pairs = [(ROW, ROW), (ROW[:3], ROW[:3])]
    with pytest.raises(DataError, match="found some of 16 tokens; allowed: one length"):
        get_batch(pairs, [0, 1])


@pytest.mark.parametrize("tokens", [list(range(40)), torch.arange(40), np.arange(40, dtype="i8")])
def test_tokens_may_be_a_list_a_tensor_or_of_any_integers(tokens: Any) -> None:
    expected = TokenDataset(np.arange(40, dtype=np.uint16), 8)
    dataset = TokenDataset(tokens, 8)
    assert torch.equal(dataset[3][0], expected[3][0])
    assert dataset.tokens.dtype == np.uint16


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: TokenDataset(np.arange(-1, 40), 8), "found the token -1; allowed: from 0"),
        (lambda: TokenDataset(np.full(40, 2**32), 8), "found the token 4294967296"),
        (lambda: TokenDataset(np.zeros(40), 8), "found float64 of the shape"),
        (lambda: TokenDataset(np.zeros((4, 40), np.uint16), 8), "found uint16 of the shape"),
        (lambda: TokenDataset("abc", 8), "found <U3 of the shape"),  # type: ignore[arg-type]
        (lambda: TokenDataset([], 8), "has 0 tokens, and block_size 8 needs 9"),
        (lambda: TokenDataset(np.arange(40), 0), "block_size: found 0; allowed: an integer, at le"),
        (lambda: TokenDataset(np.arange(40), 2.0), "block_size: found 2.0"),  # type: ignore[arg-type]
        (lambda: CharDataset("", 8), "has 0 tokens, and block_size 8 needs 9"),
        (lambda: CharDataset(b"abc", 8), "text: found bytes; allowed: a text"),  # type: ignore[arg-type]
        (lambda: CharDataset(Path("a.txt"), 8), "text: found PosixPath"),  # type: ignore[arg-type]
    ],
)
def test_tokens_that_no_dataset_can_have_are_refused(make: Callable[[], object], line: str) -> None:
    with pytest.raises(NanoGPT2Error, match=line):
        make()


def test_torchs_own_parts_of_a_dataset_are_datasets(tiny: Config) -> None:
    parts = random_split(WHOLE, [20, len(WHOLE) - 20])
    assert Trainer(GPT(tiny), tiny).train(*parts).step == 6


# --- Evaluation and texts ---


@pytest.mark.parametrize(
    ("knobs", "line"),
    [
        ({"batch_size": 0}, "batch_size: found 0; allowed: an integer, at least 1"),
        ({"stride": 0}, "stride: found 0"),
        ({"stride": -4}, "stride: found -4"),
        ({"tokens": np.full(40, 7, np.uint16)}, "the split has the token 7; allowed: from 0 to 1"),
        ({"tokens": np.zeros(40)}, "the split: found float64"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(model: GPT, knobs: dict[str, Any], line: str) -> None:
    chosen = {"tokens": np.zeros(40, np.uint16), "batch_size": 2, **knobs}
    with pytest.raises(NanoGPT2Error, match=f"^{line}"):
        evaluate_tokens(model, tokenizer=CharTokenizer("ab"), **chosen)


def test_texts_that_are_none_are_refused(model: GPT) -> None:
    tokenizer = CharTokenizer("ab")
    sampler = Sampler(model, tokenizer, 5)
    with pytest.raises(ConfigError, match="text: found bytes"):
        score_text(model, tokenizer, b"abab")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="prompt: found NoneType"):
        sampler.write_on([None], seed=1)  # type: ignore[list-item]
    with pytest.raises(DataError, match="prompts: found one text; allowed: a list of texts"):
        sampler.write_on("ab", seed=1)
    with pytest.raises(ConfigError, match="seed: found -1"):
        sampler.write_on(["a"], seed=-1)
    with pytest.raises(DataError, match="tokenizer: found 256 tokens; allowed: at most vocab_size"):
        Sampler(model, ByteTokenizer(), 5)
    assert sampler.write_on([], seed=1) == []


def test_one_stop_string_may_stand_alone(model: GPT) -> None:
    tokenizer = CharTokenizer("ab\n")
    both = [Sampler(model, tokenizer, 60, stop=stop) for stop in ("ab", ["ab"])]
    assert both[0].write_on(["a"], seed=1) == both[1].write_on(["a"], seed=1)


# --- Paths as text, and files of length 0 ---


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_may_be_a_text(tiny: Config, text: str, kind: type) -> None:
    def at(path: str) -> Any:
        return kind(path)

    Path("text.txt").write_text(text * 2, encoding="utf-8")
    assert read_corpus(at("text.txt"))[0] == text * 2
    chosen = {"tokenizer": "char", "vocab_size": 64, "fractions": (0.2, 0.1)}
    prepare(at("text.txt"), at("data"), **chosen)  # type: ignore[arg-type]
    train, val = (load_split(at("data"), name, 16) for name in ("train", "val"))
    config = get_config(
        tiny,
        corpus=at("text.txt"),
        checkpoint_dir=at("out"),
        evaluate={"memorisation_samples": 2, "memorisation_tokens": 20},
    )
    trainer = Trainer(GPT(config), config, resume_root=at("states"), log_file=at("logs/my.log"))
    record = trainer.train(train, val)
    record.write(at("m.json"), at("c.csv"))
    weights = {"best": record.best_weights}
    save_trained(weights, config, at("data"), record.metrics())
    save_checkpoint(at("b.pt"), record.best_weights, config, tokenizer=None, origin={})
    loaded = load_checkpoint(at("out/best_model.pt"), device="cpu")
    assert evaluate_splits(loaded, at("data"), batch_size=4).figures["val"]["loss"] > 0
    assert check_memorisation(loaded, at("data"), config.evaluate)[1]
    bare = load_checkpoint(at("b.pt"), device="cpu")
    assert tokenizer_of(bare, at("data/tokenizer.json")).size == loaded.tokenizer.size  # type: ignore[union-attr]
    write_samples(at("samples"), ["abc"])
    assert read_prompts(at("samples/sample_1.txt")) == ["abc"]
    assert read_prompt_file(at("samples/sample_1.txt")) == "abc"
    Path("my.yaml").write_text("n_layer: 1\n", encoding="utf-8")
    assert get_config(at("my.yaml")).n_layer == 1
    with pytest.raises(ConfigError, match="no line"):
        use_preset("nano", at("my.yaml"))
    assert list_runs(at("states")) == prune_runs(at("states")) == []


def test_numbers_of_numpy_and_a_configuration_are_settings(tiny: Config) -> None:
    config = get_config(tiny, n_layer=np.int64(3), learning_rate=np.float32(0.5))
    assert (config.n_layer, config.learning_rate) == (3, 0.5)
    for source in (None, 7, ["nano"]):
        with pytest.raises(ConfigError, match=r"configuration: found .*; allowed: a preset's name"):
            get_config(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "cuda:99"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"^device: found {name}"):
        load_checkpoint("any.pt", device=name)


@pytest.mark.parametrize("content", [b"", b"\0", b"[1]", b'{"vocabulary": null}'])
@pytest.mark.parametrize("damaged", ["dataset.json", "tokenizer.json", "val.bin", "best_model.pt"])
def test_a_file_of_length_0_or_cut_short_is_named(
    tiny: Config, text: str, damaged: str, content: bytes
) -> None:
    Path("text.txt").write_text(text, encoding="utf-8")
    chosen = {"tokenizer": "char", "vocab_size": 64, "fractions": (0.2, 0.1)}
    prepare("text.txt", "data", **chosen)  # type: ignore[arg-type]
    save_checkpoint("data/best_model.pt", GPT(tiny).state_dict(), tiny, tokenizer=None, origin={})
    Path("data", damaged).write_bytes(content)
    with pytest.raises(NanoGPT2Error):
        evaluate_splits(load_checkpoint("data/best_model.pt", device="cpu"), "data", batch_size=4)
