"""What `pip install '.[s3]'` and `'.[ssh]'` bring is what DVC asks for, at pinned versions."""

import tomllib
from importlib.metadata import requires

import pytest
from imports import ROOT
from packaging.requirements import Requirement

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
PINS = dict(
    line.split("==")
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
    guide = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    line = next(line for line in guide.splitlines() if f"'.[{remote}]'" in line)
    assert f"{remote}://" in line
    assert guide.index("## Sharing results") < guide.index(line)
