"""Dataset cards: what they tell of prepared data."""

from pathlib import Path

from click.testing import CliRunner
from huggingface_hub import DatasetCard
from preparing import make_files

from nanogpt2.__main__ import main
from nanogpt2.text.doctor.dataset_card import make_dataset_card
from nanogpt2.text.prepare.prepare import prepare

REMOVED = {
    "control_characters": {"documents": 2, "characters": 9, "places": {"soft hyphen": 9}},
    "near_copies": {"characters": 12345, "places": 6},
}


def test_a_card_tells_sources_splits_tokenizer_and_warnings() -> None:
    make_files("raw/a.txt", "raw/b|c.txt", "raw/d.md")
    description = prepare("raw", "out", tokenizer="byte", vocab_size=256, fractions=(0.2, 0.2))
    done = CliRunner().invoke(main, ["data", "--card", "card.md", "--prepared", "out"])
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.endswith(" -> card.md\n")
    card = Path("card.md").read_text(encoding="utf-8")
    assert "task_categories:\n- text-generation" in str(DatasetCard(card).data)
    for source in description["sources"]:
        assert source["sha256"] in card
    assert r"b\|c.txt" in card
    assert "1 .md" in card
    assert "byte: 256 tokens, 1.000 tokens a byte" in card
    assert "are little: 1 MB or more is advised" in card
    assert "Nothing was removed." in card
    for name, part in description["splits"].items():
        assert f"| {name} | {part['tokens']:,} |" in card
    cleaned = make_dataset_card({**description, "removed": REMOVED}, name="My data")
    assert "# My data\n" in cleaned
    assert "| `clean.control_characters` | 9 | soft hyphen: 9 |" in cleaned
    assert "| `clean.near_copies` | 12,345 | 6 |" in cleaned


def test_a_card_takes_no_other_files_place() -> None:
    make_files("raw/a.txt", "card.md")
    prepare("raw", "data/prepared", tokenizer="byte", vocab_size=256, fractions=(0.2, 0.2))
    done = CliRunner().invoke(main, ["data", "--card", "card.md"])
    assert done.exit_code == 1
    assert "card.md: is there and no card" in done.stderr
