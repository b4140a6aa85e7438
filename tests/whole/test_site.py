"""The documents as a site: built without a warning, and read in a browser without network."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from browser import Browser
from every import in_every, some
from imports import ROOT
from reader import prepare, walk
from workspace import TEXT, Workspace, once

from nanogpt2.config import yaml12
from nanogpt2.config.schema import load_schema

if importlib.util.find_spec("material") is None:
    pytest.skip("no mkdocs-material: pip install '.[docs]'", allow_module_level=True)
SEARCH = "document.querySelector('[data-md-component=search-query]')"


def build(target: Path) -> None:
    # not --quiet: then warnings are no errors
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site() -> Path:
    return once("site", build)


def test_no_page_asks_for_anything_that_is_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 60
    for page in pages:
        text = page.read_text(encoding="utf-8")
        asked = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', text)
        asked += re.findall(
            r'<link[^>]* rel="(?:stylesheet|icon|preload)"[^>]* href="([^"]+)"', text
        )
        asked += re.findall(r'<link[^>]* href="([^"]+)" rel="(?:stylesheet|icon|preload)"', text)
        assert asked
        assert [one for one in asked if "//" in one] == [], page
        assert "```" not in text, page  # a block that is none


@pytest.mark.parametrize(
    "page", some(["start", "parameters", "pipeline", "comparison"], "start", "comparison")
)
def test_a_page_is_read_on_a_desktop_and_a_phone(site: Path, browser: Browser, page: str) -> None:
    for width, dark in ((1280, False), (390, True)):
        browser.open((site / f"{page}.html").as_uri(), width=width, dark=dark)
        assert browser.problems == []
        assert {request.split(":")[0] for request in browser.requests} <= {"file", "data"}
        assert browser.run("document.documentElement.scrollWidth") <= width
        shade = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (shade == "rgb(255, 255, 255)") is not dark


@in_every("tests/whole/test_page_blocks.py runs these commands too")
def test_who_only_reads_the_site_comes_to_a_model_that_others_can_use(
    site: Path, browser: Browser, tmp_path: Path
) -> None:
    """What takes long is left out here; `benchmarks/walk.py` runs all of it."""
    project = Workspace.trained(tmp_path / "project")
    prepare(project, TEXT)
    steps = [*walk(site, browser, project, links=1)]
    assert sum(step.startswith("clicked") for step in steps) >= 6
    ran = [step.split(": ")[1] for step in steps if step.startswith("ran")]
    for command in ("python -m nanogpt2 data data/raw", "dvc push", "python -m nanogpt2 verify"):
        assert command in ran
    assert (project.root / "model.html").exists()
    assert (project.root / "report.html").exists()


def test_search_finds_from_a_file(site: Path, browser: Browser) -> None:
    browser.open((site / "index.html").as_uri())
    browser.run(f"{SEARCH}.focus()")
    browser.run(f"{SEARCH}.value = 'label_smoothing_is_not_there learning_rate'")
    browser.run(f"{SEARCH}.dispatchEvent(new KeyboardEvent('keyup'))")
    found = browser.wait(
        "[...document.querySelectorAll('.md-search-result__link')].map(a => a.href).join(' ')"
    )
    assert "parameters.html" in found


def test_figures_show_the_project_as_it_is(site: Path) -> None:
    stages = yaml12.read(ROOT / "dvc.yaml")["stages"]
    pipeline = (site / "pipeline.html").read_text(encoding="utf-8")
    drawn = re.search(r'id="figure-pipeline".*?</figure>', pipeline, flags=re.DOTALL)
    assert drawn
    assert all(f">{stage}</text>" in drawn[0] for stage in stages)
    assert "mermaid" not in pipeline
    params = yaml12.read(ROOT / "params.yaml")
    model = (site / "architecture.html").read_text(encoding="utf-8")
    assert f"{params['n_layer']} blocks on (B, T, {params['n_embd']})" in model


def test_what_github_draws_of_the_pipeline_has_the_arrows_of_dvc_yaml() -> None:
    stages = yaml12.read(ROOT / "dvc.yaml")["stages"]
    text = (ROOT / "docs/pipeline.md").read_text(encoding="utf-8")
    names = rf"(?:{'|'.join(stages)})(?: & (?:{'|'.join(stages)}))*"
    drawn = set()
    for before, after in re.findall(rf"({names}) -\.?->(?:\|[^|]*\|)? ({names})", text):
        drawn |= {(a, b) for a in before.split(" & ") for b in after.split(" & ")}
    outs = {"data/shakespeare": "corpus"}
    for name, stage in stages.items():
        outs |= {next(iter(out)) if isinstance(out, dict) else out: name for out in stage["outs"]}
    arrows = {
        (outs[dep], name) for name, stage in stages.items() for dep in stage["deps"] if dep in outs
    }
    assert drawn == arrows | {("corpus", "prepare")}  # which params.yaml may change


def test_parameters_and_api_are_those_of_the_code(site: Path) -> None:
    parameters = (site / "parameters.html").read_text(encoding="utf-8")
    for key, rule in load_schema()["properties"].items():
        names = (
            [f"{key}.{inner}" for inner in rule["properties"]] if "properties" in rule else [key]
        )
        assert all(f'id="{name}"' in parameters for name in names), key
    reference = (site / "reference.html").read_text(encoding="utf-8")
    for name in ("model.gpt.GPT", "train.trainer.Trainer", "config.config.get_config"):
        assert f'id="nanogpt2.{name}"' in reference


def test_the_extra_brings_what_builds_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    assert any("docs" in line for line in extras["dev"])
