"""ci/thresholds.yaml: what it may say, and one line for each mistake."""

import json

import pytest
import yaml
from imports import ROOT

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.experiments.gate.thresholds import Acceptance, parse_thresholds, read_thresholds

WHOLE = """
noise: ci/noise.json
chance: 0.02
metrics:
  metrics/eval.json:
    val.loss:
      better: lower
      allowed: noise
      accept: {figure: 1.62, because: half the parameters}
    val.accuracy: {better: higher, allowed: 2%}
  metrics/train.json:
    train_loss: {better: lower, allowed: 0.05}
"""


def test_a_file_is_read_as_it_says() -> None:
    thresholds = parse_thresholds(WHOLE, name="thresholds.yaml")
    assert (thresholds.noise, thresholds.chance) == ("ci/noise.json", 0.02)
    loss, accuracy, trained = thresholds.metrics
    assert (loss.file, loss.key, loss.lower_is_better) == ("metrics/eval.json", "val.loss", True)
    assert loss.accept == Acceptance(1.62, "half the parameters")
    assert (accuracy.lower_is_better, accuracy.allowed, accuracy.accept) == (False, "2%", None)
    assert (trained.name, trained.allowed) == ("metrics/train.json: train_loss", 0.05)
    assert thresholds.of_noise() == [loss]


def test_the_projects_own_file_is_valid_and_names_figures_that_are_there() -> None:
    thresholds = read_thresholds(str(ROOT / "ci/thresholds.yaml"))
    figures = json.loads((ROOT / "metrics/eval.json").read_text(encoding="utf-8"))
    for threshold in thresholds.metrics:
        found = figures
        for key in threshold.key.split("."):
            found = found[key]
        assert threshold.file == "metrics/eval.json"
    assert not any(threshold.key.startswith("test.") for threshold in thresholds.metrics)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("0.02", "0", "chance: found 0; allowed: a number, above 0 and below 0.5"),
        ("0.02", ".nan", "chance: found a number that is not finite; allowed: a finite number"),
        ("chance", "chances", "chances: unknown key; allowed: noise, chance, metrics"),
        (
            "better: lower\n",
            "better: less\n",
            'metrics: metrics/eval.json: val.loss: better: found "less"; allowed: lower or higher',
        ),
        (
            "allowed: noise",
            "allowed: -1",
            "metrics: metrics/eval.json: val.loss: allowed: found -1; allowed: noise, a number"
            " that is at least 0, or a share such as 2%",
        ),
        ("2%", "2 percent", 'val.accuracy: allowed: found "2 percent"; allowed: noise, a number'),
        (", because: half the parameters", "", "accept: because: is missing; allowed: a text"),
        ("{better: lower, allowed: 0.05}", "0.05", "train_loss: found 0.05; allowed: keys with"),
        ("      allowed: noise\n", "", "val.loss: allowed: is missing; allowed: noise, a number"),
    ],
)
def test_a_mistake_has_one_line(old: str, new: str, line: str) -> None:
    assert old in WHOLE
    with pytest.raises(ConfigError) as raised:
        parse_thresholds(WHOLE.replace(old, new, 1), name="thresholds.yaml")
    lines = str(raised.value).splitlines()
    assert any(line in each for each in lines), lines
    assert all(each.startswith("thresholds.yaml: ") for each in lines)
    assert len(lines) == 1


@pytest.mark.parametrize("text", ["metrics: {}", "chance: 0.1", "metrics: [1]", "- 1"])
def test_a_file_without_metrics_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^t.yaml: "):
        parse_thresholds(text, name="t.yaml")


def test_an_editor_is_pointed_at_the_schema() -> None:
    first = (ROOT / "ci/thresholds.yaml").read_text(encoding="utf-8").splitlines()[0]
    schema = ROOT / "ci" / first.partition("$schema=")[2]
    assert schema.resolve() == ROOT / "schemas/thresholds.schema.json"
    assert yaml.safe_load(schema.read_text(encoding="utf-8"))["title"] == "nanoGPT2 thresholds"
