"""`ci/check.sh` on branches of a project with real DVC, in shallow clones that have no data."""

import json
from pathlib import Path
from typing import Any

import pytest
import warm
from click.testing import CliRunner
from dvc.exceptions import ReproductionError
from dvc.repo import Repo
from workspace import Workspace

from nanogpt2.__main__ import main
from nanogpt2.base.system.files import sha256, write_json
from nanogpt2.config import yaml12

EVAL = "metrics/eval.json"
OFF = (-0.02, 0.01, 0.03)  # of the losses of seeds from that of the run


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project: main with a run and its noise, a branch with a worse rate, one with other docs."""
    made = Workspace.trained(tmp_path_factory.mktemp("gate") / "project")
    made.git("branch", "-M", "main")
    save_seeds(made)
    made.run(warm.executable(), "-m", "nanogpt2", "check", "--measure-noise")
    made.commit("its noise")
    made.git("checkout", "--quiet", "-b", "worse")
    set_parameters(made.root, learning_rate=1e-5, muon_learning_rate=1e-5)
    made.dvc("repro")
    made.commit("a lower rate")
    made.git("checkout", "--quiet", "-b", "docs", "main")
    with (made.root / "README.md").open("a", encoding="utf-8") as file:
        file.write("\nMore words.\n")
    made.commit("more words")
    return made


def save_seeds(made: Workspace) -> None:
    """Keep experiments like those that `seeds` runs, whose losses differ a little.

    DVC keeps one as a commit that refs/exps/ names.
    """
    figures = json.loads((made.root / EVAL).read_text(encoding="utf-8"))
    loss, start = figures["val"]["loss"], made.git("rev-parse", "main").strip()
    for seed, off in enumerate(OFF, start=1):
        made.git("checkout", "--quiet", "--detach", "main")
        figures["val"]["loss"] = round(loss + off, 6)
        write_json(made.root / EVAL, figures)
        made.commit(f"seed {seed}")
        name = f"seed-{seed}-{sha256(b'')[:6]}"
        made.git("update-ref", f"refs/exps/{start[:2]}/{start[2:]}/{name}", "HEAD")
    made.git("checkout", "--quiet", "main")


def set_parameters(root: Path, **values: Any) -> None:
    path = root / "params.yaml"
    text = yaml12.replace_values(path.read_text(encoding="utf-8"), values)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def clone(origin: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes a shallow clone of a branch, without data, the current folder."""

    def make(branch: str) -> Workspace:
        place = tmp_path / branch
        options = ("--quiet", "--depth", "1", "--branch", branch)
        origin.git("clone", *options, origin.root.as_uri(), str(place))
        monkeypatch.chdir(place)
        return Workspace.at(place, origin.env)

    return make


def check(*options: str) -> tuple[int, list[str]]:
    """Return the exit status of `check` in the current folder, and its lines."""
    done = CliRunner().invoke(main, ["check", *options], catch_exceptions=False)
    return done.exit_code, (done.stdout or done.stderr).splitlines()


def test_a_worse_branch_fails_with_the_table_that_says_why(clone: Any) -> None:
    worse = clone("worse")
    done = worse.run("bash", "ci/check.sh", check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[-1] == "FAILED: val.loss"
    row = next(line.split() for line in lines if line.startswith("val.loss"))
    base, head, difference, allowed, verdict = row[1:]
    assert verdict == "WORSE"
    assert float(head) - float(base) == pytest.approx(float(difference), abs=1e-4)
    assert float(difference) > float(allowed) > max(OFF)
    assert "learning_rate       0.008  1e-05" in lines
    summary = (worse.root / "logs/check/summary.md").read_text(encoding="utf-8")
    assert summary.startswith("## FAILED: val.loss\n")
    assert f"| val.loss | {' | '.join(row[1:])} |" in summary
    assert "| learning_rate | 0.008 | 1e-05 |" in summary
    assert "| metrics/eval.json  | val.bits_per_byte  |" in summary  # by DVC
    assert "| params.yaml | muon_learning_rate | 0.02          | 1e-05       |" in summary
    assert worse.git("status", "--porcelain") == ""
    assert worse.git("rev-list", "--count", "--all").strip() == "2"  # it is as shallow as before


def test_a_branch_of_other_words_passes_and_the_page_of_a_job_gets_the_summary(
    clone: Any, tmp_path: Path
) -> None:
    docs = clone("docs")
    page = tmp_path / "page.md"
    page.write_text("before\n", encoding="utf-8")
    docs.env |= {"GITHUB_STEP_SUMMARY": str(page)}
    done = docs.run("bash", "ci/check.sh", "origin/main", "out")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("dvc.lock is of this params.yaml, dvc.yaml, code, metrics and plots")
    assert "no parameter, code or text has changed" in lines
    assert lines[-1] == "passed: no worse than origin/main"
    summary = (docs.root / "out/summary.md").read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8") == f"before\n{summary}"
    assert not (docs.root / "data/prepared").exists()


def test_the_noise_is_of_the_seeds_that_ran(origin: Workspace) -> None:
    noise = json.loads(origin.git("show", "main:ci/noise.json"))
    figures = json.loads(origin.git("show", f"main:{EVAL}"))
    assert noise["seeds"] == [1, 2, 3]
    losses = noise["figures"][EVAL]["val.loss"]
    assert losses == pytest.approx([figures["val"]["loss"] + off for off in OFF], abs=1e-4)
    assert noise["parameters"]["learning_rate"] == 0.008
    assert noise["parameters"]["evaluate.batch_size"] == 64
    assert "seed" not in noise["parameters"]


def test_a_worse_figure_is_accepted_once_with_a_reason(clone: Any) -> None:
    worse = clone("worse")
    path = worse.root / "ci/thresholds.yaml"
    reason = "\n      accept: {figure: 5.6, because: half the energy}\n"
    text = path.read_text(encoding="utf-8").replace(
        "\n      allowed: noise", reason + "      allowed: noise"
    )
    path.write_text(text, encoding="utf-8")
    status, lines = check()
    assert status == 0, lines
    assert any(line.endswith("accepted: half the energy") for line in lines)
    path.write_text(text.replace("5.6", "5.0"), encoding="utf-8")  # it came to more
    assert check()[0] == 1
    path.write_text(text, encoding="utf-8")
    worse.git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qam", "accept")
    assert check("--base", "HEAD")[0] == 0  # the same figure
    figures = json.loads((worse.root / EVAL).read_text(encoding="utf-8"))
    figures["val"]["loss"] += 0.05 + 10 * max(OFF)
    write_json(worse.root / EVAL, figures)
    status, lines = check("--base", "HEAD")
    assert lines[-1] == "FAILED: val.loss"  # it was spent


# What a person edits, and whether dvc.lock still fits.
EDITS = {
    "learning_rate": ("params.yaml", "learning_rate: 8e-3", "learning_rate: 9e-3"),
    "device": ("params.yaml", "device: cpu", "device: auto"),
    "code": ("nanogpt2/sample/stream.py", '"""', '"""More. '),
    "text": ("data/raw.dvc", "md5: ", "md5: 0"),
    "link": ("dvc.lock", "    - path: data/prepared\n      hash: md5\n      md5: ", "{}0"),
    "report": ("nanogpt2/report/advice.py", '"""', '"""More. '),
}


@pytest.mark.filterwarnings("ignore:_NoneStep.value")  # of what DVC imports
def test_the_record_fits_where_dvc_would_run_nothing(clone: Any) -> None:
    """With data that is not here: `dvc status` calls all of it deleted."""
    docs = clone("docs")
    for edit, (name, old, new) in EDITS.items():
        path = docs.root / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new.format(old), 1), encoding="utf-8")
        with Repo() as repo:
            try:
                planned = repo.reproduce(dry=True, allow_missing=True)
            except ReproductionError:  # the text has another hash than its record
                planned = [edit]
        lines = check()[1]
        fits = lines[0].startswith("dvc.lock is of this params.yaml")
        assert fits == (not planned), (edit, lines, planned)
        path.write_text(text, encoding="utf-8")


def test_parameters_without_a_run_have_one_line_that_says_what_to_do(clone: Any) -> None:
    docs = clone("docs")
    set_parameters(docs.root, learning_rate=1e-3)
    status, lines = check()
    assert status == 1
    assert lines[-2] == (
        "dvc.lock is not of what lies here: learning_rate of params.yaml (train),"
        " params.yaml (validate): run dvc repro, and commit dvc.lock, metrics and plots"
    )


def test_a_base_that_is_nowhere_has_one_line(clone: Any) -> None:
    clone("docs")
    for base, line in {
        "origin/none": "origin/none: not in this clone, and this failed: git fetch --depth=1"
        " --no-tags origin +refs/heads/none:refs/remotes/origin/none",
        "HEAD~1": "HEAD~1: git knows no such commit, and this clone is shallow:"
        " git fetch --unshallow",
    }.items():
        status, lines = check("--base", base)
        assert (status, lines[-2]) == (1, line)
    status, lines = check("--base", "0" * 40)  # GitHub's word for the first push of a branch
    assert (status, lines[-1]) == (0, "passed")


def test_a_base_is_fetched_by_its_hash_too(origin: Workspace, clone: Any) -> None:
    docs = clone("docs")
    before = origin.git("rev-parse", "main~1").strip()
    status, lines = check("--base", before)
    assert (status, lines[-1]) == (0, f"passed: no worse than {before}")
    assert docs.git("rev-list", "--count", "HEAD").strip() == "1"  # as shallow as before


def test_what_cannot_be_read_has_one_line_each(clone: Any) -> None:
    docs = clone("docs")
    lock = docs.root / "dvc.lock"
    lock.write_text("<<<<<<< HEAD\n" + lock.read_text(encoding="utf-8"), encoding="utf-8")
    (docs.root / "ci/thresholds.yaml").unlink()
    status, lines = check()
    assert status == 1
    assert lines[-3].startswith("dvc.lock: line ")
    assert lines[-2].startswith("ci/thresholds.yaml: cannot be read: No such file")
    lock.unlink()
    status, lines = check()
    assert lines[-3] == (
        "dvc.lock: no such file: run dvc repro, and commit dvc.lock, metrics and plots"
    )
    assert lines[-2].startswith("ci/thresholds.yaml: cannot be read: No such file")


def test_the_check_needs_no_torch(clone: Any) -> None:
    docs = clone("docs")
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['check', 'check'];"
        "from nanogpt2.__main__ import main; main()"
    )
    assert docs.run(warm.executable(), "-c", code).returncode == 0
