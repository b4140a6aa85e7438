"""What an extra brings is pinned, and its absence is one line with the command that brings it."""

import tomllib
from importlib.metadata import requires

import pytest
from imports import ROOT
from packaging.requirements import Requirement

from nanogpt2.base.system.errors import ExtraError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.report.loggers import SINKS

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
PINS = dict(
    line.lower().split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line
)


@pytest.mark.parametrize("remote", ["s3", "ssh"])
def test_a_remote_has_the_package_that_dvc_asks_for(remote: str) -> None:
    (ours,) = (Requirement(line) for line in EXTRAS[remote])
    asked = [Requirement(line) for line in requires("dvc") or []]
    (theirs,) = (
        each
        for each in asked
        if each.name == ours.name and each.marker and each.marker.evaluate({"extra": remote})
    )
    assert theirs.specifier.contains(PINS[ours.name])
    assert ours.specifier.contains(PINS[ours.name])


@pytest.mark.parametrize("remote", ["s3", "ssh"])
def test_the_guide_says_how_to_install_it_where_remotes_are_explained(remote: str) -> None:
    guide = (ROOT / "docs/sharing.md").read_text(encoding="utf-8").partition("## Share a run")[2]
    line = next(line for line in guide.splitlines() if f"'.[{remote}]'" in line)
    assert f"`{remote}://`" in line


@pytest.mark.parametrize("logger", list(SINKS))
def test_a_logger_s_extra_is_pinned_and_explained(logger: str) -> None:
    for line in EXTRAS[logger]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(PINS[requirement.name])
    guide = (ROOT / "docs/sharing.md").read_text(encoding="utf-8").partition("## Loggers")[2]
    assert f"| `{logger}` | the extra `{logger}`" in guide


def test_a_library_that_is_there_is_imported() -> None:
    assert import_extra("json", extra="hf").loads("1") == 1


def test_a_missing_library_is_named_with_the_command_that_brings_it() -> None:
    with pytest.raises(ExtraError, match=r"no_such_library is not .*'\.\[gguf\]'"):
        import_extra("no_such_library.part", extra="gguf")
