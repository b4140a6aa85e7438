"""Model cards: what Hugging Face's own library reads in them, and what they leave out."""

import re
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from nanogpt2.config.config import get_config
from nanogpt2.experiments.proof.card import Facts, make_card
from nanogpt2.experiments.significance import t_quantile

ROW = {"loss": 1.5, "perplexity": 4.5, "bits_per_byte": 2.2, "accuracy": 0.5, "tokens": 9}
COPIED = {"longest": 22, "copied_windows": 0.125}
FIGURES = {
    "val": ROW,
    "test": {**ROW, "loss": 1.6},
    "memorisation": {"samples": COPIED, "validation_text": {"longest": 25, "copied_windows": 0}},
}
SPLITS = {name: {"tokens": 1000, "bytes": 2000} for name in ("train", "val", "test")}
DATASET = {
    "characters": 1234567,
    "tokens": 3000,
    "sources": [{"path": 'a|b: "c".txt', "bytes": 99, "sha256": "f" * 64}],
    "splits": SPLITS,
    "sha256": dict.fromkeys(SPLITS, "e" * 64),
    "warnings": ["99 bytes of text are little"],
}


@pytest.fixture
def facts() -> Facts:
    return Facts(
        name='My "model": #1',
        config=get_config("nano").resolved().training_dict(),
        n_parameters=218432,
        tokenizer="char tokenizer of 69 tokens",
        licence="cc-by-4.0",
        dataset=DATASET,
        figures=FIGURES,
        samples=["To be,\n```\n# or not", "x" * 2000, "second", "third"],
        commit="0" * 40,
        hashes={"checkpoints/best_model.pt": "a" * 64},
    )


def metadata(text: str) -> Any:
    """Return what Hugging Face's library makes of a card's head."""
    return ModelCard(text).data


def figures_in(text: str) -> dict[tuple[str, str], float]:
    results = metadata(text).eval_results or []
    return {(each.dataset_split, each.metric_type): each.metric_value for each in results}


def test_its_metadata_is_what_hugging_face_reads(facts: Facts) -> None:
    text = make_card(facts)
    data = metadata(text)
    assert (data.license, data.language) == ("cc-by-4.0", None)
    assert (data.pipeline_tag, data.library_name) == ("text-generation", "nanogpt2")
    assert data.model_name == 'My "model": #1'
    assert data.tags == ["nanogpt2", "gpt"]
    found = figures_in(text)
    assert found["val", "loss"] == 1.5
    assert found["test", "loss"] == 1.6
    assert found["test", "accuracy"] == 0.5
    assert len(found) == 8
    assert metadata(str(ModelCard(text))).to_dict() == data.to_dict()


def test_it_tells_data_figures_and_how_to_reproduce(facts: Facts) -> None:
    card = make_card(facts)
    for text in (
        "1,234,567 characters",
        "f" * 64,
        "Warning: 99 bytes of text are little.",
        "Single figures, of one run with seed",
        "12.5% stand verbatim in the training text, the longest of 22 characters",
        "git checkout " + "0" * 40,
        "| `checkpoints/best_model.pt` | `" + "a" * 64,
        "218,432 parameters",
        "| `n_layer` | `4` |",
    ):
        assert text in card, text
    assert r"a\|b" in card  # a table's bar


def test_a_sample_can_neither_end_its_block_nor_fill_the_card(facts: Facts) -> None:
    body = make_card(facts).partition("## Samples")[2]
    assert "````text\nTo be,\n```\n# or not\n````\n" in body
    assert "x" * 600 + "..." in body
    assert "x" * 601 not in body
    assert "third" not in body


def test_figures_of_several_seeds_are_means_with_their_interval(facts: Facts) -> None:
    seeds = {seed: {**FIGURES, "val": {**ROW, "loss": 1.5 + seed / 10}} for seed in (1, 2, 3)}
    card = make_card(replace(facts, seeds=seeds))
    assert figures_in(card)["val", "loss"] == 1.7
    margin = t_quantile(0.99, 2) * 0.1 / 3**0.5
    assert f"| 1.7000 ± {margin:.4f} |" in card
    assert "Means over the seeds 1, 2, 3, and ± the 99% interval" in card
    assert "Single figures" not in card


def test_what_is_not_known_is_left_out(facts: Facts) -> None:
    bare = replace(
        facts, licence=None, dataset=None, figures=None, samples=(), commit=None, hashes={},
        notes=["the training data: gone"],
    )  # fmt: skip
    card = make_card(bare)
    assert metadata(card).license is None
    assert metadata(card).eval_results is None
    assert re.findall("^## (.*)$", card, re.MULTILINE) == [
        *("Use", "Licence", "Parameters", "Not told")
    ]
    assert "None is chosen yet" in card
