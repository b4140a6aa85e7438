"""The pipeline, with real DVC and git in a temporary clone."""

import csv
import io
import json
from pathlib import Path

import pytest
from every import some
from ruamel.yaml import YAML
from workspace import Workspace


@pytest.fixture(scope="module")
def repro(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone in which `dvc repro` has run and was committed."""
    return Workspace.trained(tmp_path_factory.mktemp("clone") / "project")


def test_it_writes_what_the_design_names(repro: Workspace) -> None:
    names = set(repro.outputs())
    assert {"checkpoints/final_model.pt", "checkpoints/best_model.pt"} < names
    assert {"metrics/train.json", "metrics/eval.json", "metrics/copies.txt"} < names
    assert {"plots/loss.csv", "plots/position.csv", "plots/tokens.csv"} < names
    prepared = {"train.bin", "val.bin", "test.bin", "tokenizer.json", "dataset.json"}
    assert {f"data/prepared/{name}" for name in prepared} < names
    assert {f"samples/sample_{number}.txt" for number in range(1, 6)} < names


def test_the_terminal_shows_what_goes_on(repro: Workspace) -> None:
    shown = (repro.root / "repro.txt").read_text(encoding="utf-8")
    for line in ("read 1 file", "char tokenizer", "iter 4: train loss", "val: loss", "test: loss"):
        assert line in shown


def test_figures_are_plain_and_the_same_in_all_places(repro: Workspace) -> None:
    figures = json.loads((repro.root / "metrics/train.json").read_text())
    rows = list(csv.DictReader((repro.root / "plots/loss.csv").read_text().splitlines()))
    assert [row["iter"] for row in rows] == ["4", "8"]
    assert float(rows[-1]["val_loss"]) == figures["val_loss"]
    assert figures["best_val_loss"] == min(float(row["val_loss"]) for row in rows)
    evaluated = json.loads((repro.root / "metrics/eval.json").read_text())
    dataset = json.loads((repro.root / "data/prepared/dataset.json").read_text())
    for split in ("val", "test"):
        assert evaluated[split]["tokens"] == dataset["splits"][split]["tokens"] - 1


def test_a_second_repro_runs_nothing(repro: Workspace) -> None:
    assert repro.stages_run("repro") == []
    assert repro.git("status", "--porcelain") == ""


def test_the_lock_file_is_as_dvc_itself_writes_it(repro: Workspace) -> None:
    """As it would without what tests/warm.py spares it."""
    text, written = (repro.root / "dvc.lock").read_text(encoding="utf-8"), io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump(yaml.load(text), written)
    assert written.getvalue() == text


def test_forced_again_at_another_path_it_writes_the_same_bytes(
    repro: Workspace, tmp_path: Path
) -> None:
    other = repro.copy(tmp_path / "another" / "deeper" / "path")
    assert len(other.stages_run("repro", "--force")) == 7
    assert other.outputs() == repro.outputs()
    assert other.git("status", "--porcelain") == ""


CHANGES = [
    ("params.yaml", "\n  temperature: 0.8", "\n  temperature: 0.9"),
    ("params.yaml", "stride:  ", "stride: 3 "),
    ("params.yaml", "device: cpu", "device: auto"),
    ("nanogpt2/sample/sample.py", '"""', '"""Changed. '),
    ("nanogpt2/report/advice.py", '"""', '"""Changed. '),
    ("nanogpt2/presets/nano.yaml", "#", "# changed"),
    ("params.yaml", "val_fraction: 0.1", "val_fraction: 0.2"),
]
SEEN = {  # by these stages, and the other changes by none
    "sample": ["sample"],
    "evaluate": ["evaluate"],
    "nanogpt2/sample": ["evaluate", "sample"],
    "val_fraction": ["prepare"],
    "params.yaml": ["validate"],  # any of its keys
}


def change(workspace: Workspace, name: str, old: str, new: str) -> None:
    path = workspace.root / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_change_is_seen_by_the_stages_that_read_it(repro: Workspace) -> None:
    for path, old, new in CHANGES:
        change(repro, path, old, new)
    seen: dict[str, list[str]] = {}
    for stage, (found,) in json.loads(repro.dvc("status", "--json")).items():
        assert [*found] == ["changed deps"]
        for dep, what in found["changed deps"].items():
            for name in [dep] if what == "modified" else what:
                seen.setdefault(name, []).append(stage)
    assert seen == SEEN
    repro.git("checkout", "--quiet", ".")


def test_what_changes_no_output_reruns_nothing_after_it(repro: Workspace) -> None:
    """All of the changes at once, but for the last one, which moves text between the splits."""
    for path, old, new in CHANGES[:-1]:
        change(repro, path, old, new)
    assert sorted(repro.stages_run("repro")) == ["evaluate", "sample", "validate"]
    repro.git("checkout", "--quiet", ".")
    repro.dvc("checkout", "--quiet")


def test_experiments_in_copies_finish_with_their_own_code_and_can_be_compared(
    repro: Workspace,
) -> None:
    path = repro.root / "nanogpt2/sample/sample.py"
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace('text + "\\n"', 'text + "!\\n"'), encoding="utf-8")
    changes = ["-S", "learning_rate=1e-3", "-S", "max_iters=4"]
    rerun = repro.stages_run("exp", "run", "--temp", "--name", "apart", *changes)
    assert sorted(rerun) == ["evaluate", "sample", "train", "validate"]
    repro.git("checkout", "--quiet", ".")
    repro.dvc("exp", "apply", "apart")
    assert (repro.root / "samples/sample_1.txt").read_text().endswith("!\n")
    assert "best_val_loss" in repro.dvc("metrics", "diff")
    assert "learning_rate" in repro.dvc("params", "diff")
    plots = repro.dvc("plots", "diff", "--json")
    assert "plots/loss.csv" in plots or "train_loss" in plots
    repro.git("checkout", "--quiet", ".")
    repro.dvc("checkout", "--quiet")


def test_git_restores_what_a_failing_experiment_changed(repro: Workspace) -> None:
    """Also where the new values are as long as the old ones, and written in the same second."""
    paths = [repro.root / name for name in ("params.yaml", "data/raw.dvc")]
    before = [path.read_text(encoding="utf-8") for path in paths]
    broken = repro.root / "data/raw/broken.txt"
    for value in some([5, 7], 5):
        broken.write_bytes(b"caf\xe9" * value)
        failed = repro.run("dvc", "exp", "run", "-S", f"n_head={value}", check=False)
        assert f"n_head: found {value}" in failed.stderr
        repro.git("restore", ".")
        assert [path.read_text(encoding="utf-8") for path in paths] == before
    broken.unlink()
    repro.dvc("checkout", "--quiet")


MISTAKES = [
    [("n_head: 2", "n_head: 5"), ("corpus: ", "corpus: nowhere # ")],
    [("seed: 1337 ", "sede: 1337 "), ("val_fraction: 0.1", "val_fraction: 1e-1x")],
]


def test_mistakes_in_params_cost_no_output(repro: Workspace) -> None:
    before = repro.outputs()
    path = repro.root / "params.yaml"
    text = path.read_text(encoding="utf-8")
    for mistakes in MISTAKES:
        for line, mistake in mistakes:
            change(repro, "params.yaml", line, mistake)
        failed = repro.run("dvc", "repro", check=False)
        assert failed.returncode != 0, mistakes
        for _, mistake in mistakes:
            assert mistake.partition(":")[0] in failed.stderr
        assert repro.outputs() == before, mistakes
        path.write_text(text, encoding="utf-8")
    assert repro.stages_run("repro") == []


def test_a_text_that_fails_in_a_stage_tells_the_way_back(repro: Workspace) -> None:
    before = repro.outputs()
    raw = repro.root / "data/raw/broken.txt"
    raw.write_bytes(b"caf\xe9")
    failed = repro.run("dvc", "repro", check=False)
    assert "broken.txt: not UTF-8 text" in failed.stderr
    assert "dvc checkout && git restore" in failed.stderr
    raw.unlink()
    repro.git("restore", "metrics", "plots", "data/raw.dvc")
    repro.dvc("checkout", "--quiet")
    assert repro.outputs() == before


def test_new_text_in_the_folder_is_seen_by_repro(repro: Workspace) -> None:
    (repro.root / "data/raw/more.txt").write_text("And summer's lease hath all too short a date.\n")
    assert repro.stages_run("repro") == ["prepare", "train", "evaluate", "sample"]
    sources = json.loads((repro.root / "data/prepared/dataset.json").read_text())["sources"]
    assert [source["path"] for source in sources] == ["more.txt", "sonnet.txt"]
