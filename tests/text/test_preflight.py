"""What is known before a run: texts that a copy of the project, made by DVC, leaves behind."""

from pathlib import Path

import pytest

from nanogpt2.base.errors import ConfigError
from nanogpt2.config.config import get_config
from nanogpt2.text.preflight import check_copy, check_sampling


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two texts and an empty copy of it, the current folder."""
    copy = tmp_path / ".dvc/tmp/exps/copy"
    copy.mkdir(parents=True)
    (tmp_path / "data/raw/deep").mkdir(parents=True)
    (tmp_path / "data/raw/deep/a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "hint.txt").write_text("a", encoding="utf-8")
    monkeypatch.chdir(copy)
    return tmp_path


def params(text: str) -> str:
    Path("params.yaml").write_text(text, encoding="utf-8")
    return "params.yaml"


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        ("corpus: data/raw", "dvc add data/raw && git add data/raw.dvc data/.gitignore"),
        ("corpus: data/raw/deep/a.txt", "git add data/raw/deep/a.txt"),
        ("sample: {prompt_file: hint.txt}", "git add hint.txt"),
    ],
)
def test_what_the_project_alone_has_is_named(project: Path, line: str, mend: str) -> None:
    with pytest.raises(ConfigError, match=f"not in the copy .*: {mend}$"):
        check_copy(params(line), project)


@pytest.mark.parametrize("tracked", ["data/raw.dvc", "data.dvc", "data/raw/deep/a.txt.dvc"])
def test_what_dvc_brings_is_left_to_it(project: Path, tracked: str) -> None:
    Path(tracked).parent.mkdir(parents=True, exist_ok=True)
    Path(tracked).write_text("", encoding="utf-8")
    check_copy(params("corpus: data/raw/deep/a.txt"), project)


def test_a_text_that_is_nowhere_or_a_wrong_value_is_left_to_the_other_checks(project: Path) -> None:
    check_copy(params("corpus: nowhere"), project)
    check_copy(params("corpus: [1, 2]"), project)
    check_copy(params(f"corpus: {project / 'data/raw'}"), project)


@pytest.mark.parametrize("separator", ["", "\n"])
def test_windows_can_follow_only_documents_that_are_marked(separator: str) -> None:
    with pytest.raises(ConfigError, match=r"^sampling: found documents with separator .*; allowed"):
        check_sampling(get_config({"sampling": "documents", "separator": separator}))
    check_sampling(get_config({"sampling": "documents", "separator": "\n\n"}))
    check_sampling(get_config({"sampling": "epoch", "separator": separator}))
