"""The page as people have it, in a real browser: charts, choices, keyboard, phone, paper."""

import re
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from browser import Browser
from click.testing import CliRunner
from kept import Experiment, make_project

from nanogpt2.__main__ import main
from nanogpt2.base.system.errors import ExtraError
from nanogpt2.experiments.compare.collect import collect_runs
from nanogpt2.experiments.pages.page import make_page
from nanogpt2.experiments.pages.run import write_page

EVIL = "</script><script>hacked = 1</script><img src=x onerror='hacked = 2'>"
EXPERIMENTS = [
    *(Experiment(f"plain-{seed}", {"seed": seed}, 1.6 + seed / 1000) for seed in (1, 2, 3)),
    *(Experiment(f"slow-{seed}", {"seed": seed, "learning_rate": 0.001}, 1.7 + seed / 999)
      for seed in (1, 2, 3)),
    Experiment("other-tokens", {"vocab_size": 999}, 4.0, figures={"tokens": 99_999}),
    Experiment("<b>evil", {"corpus": EVIL}, 1.65, sample=EVIL),
]  # fmt: skip
SERIES = 2 * 4  # a line of each loss: two settings of several seeds, and two runs alone


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs") / "project"
    make_project(root, EXPERIMENTS)
    with chdir(root):
        (root / "report.html").write_text(make_page(collect_runs(), Path()), encoding="utf-8")
    return root / "report.html"


@pytest.fixture
def shown(browser: Browser, page: Path) -> Iterator[Browser]:
    """Open the page for a test that changes what others see."""
    browser.open(page.as_uri())
    browser.wait("window.report?.drawn")
    yield browser
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]


@pytest.fixture
def still(browser: Browser, page: Path) -> Iterator[Browser]:
    """Open the page for a test that looks, or puts back what it changes; such tests share it."""
    if not browser.run("window.isStill"):
        browser.open(page.as_uri())
        browser.wait("window.report?.drawn")
        browser.run("window.isStill = true")
    yield browser
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]


LINES = """Object.values(report.charts.places.get("curves-chart").lines)
    .reduce((sum, source) => sum + source.data.xs.length, 0)"""
PAINTED = """[...document.querySelectorAll(".chart")].map((chart) => {
    const found = [];
    const look = (node) => {
        if (node.tagName === "CANVAS") found.push(node);
        for (const child of [...node.children, ...(node.shadowRoot?.children ?? [])]) look(child);
    };
    look(chart);
    return found.some((canvas) => canvas.width > 200 &&
        new Set(canvas.getContext("2d")
            .getImageData(0, 0, canvas.width, canvas.height).data).size > 20);
})"""


def click(browser: Browser, label: str) -> None:
    """Click the control whose label begins with `label`."""
    browser.run(
        f"""[...document.querySelectorAll("label, button")]
        .find((one) => one.textContent.trim().startsWith("{label}")).click()"""
    )


def difference(browser: Browser, name: str, key: str = "val.loss") -> str:
    """Return what the table says of a figure of a run beside the base's."""
    return str(
        browser.run(
            f"""[...document.querySelectorAll("#figures-table tbody tr")]
            .find((row) => row.querySelector("a").textContent === "{name}")
            .querySelector('[data-key="{key}"] .difference')?.textContent ?? "" """
        )
    )


def names(browser: Browser) -> list[str]:
    return list(
        browser.run("""[...document.querySelectorAll("#figures-table tbody a")]
        .map((one) => one.textContent)""")
    )


def test_every_chart_is_painted_and_has_a_line_for_each_loss(still: Browser) -> None:
    assert still.run(LINES) == SERIES
    assert still.run(PAINTED) == [True, True, True]


def test_losses_in_other_tokens_are_not_compared_but_bits_per_byte_are(still: Browser) -> None:
    assert difference(still, "other-tokens") == "other tokens"
    assert difference(still, "other-tokens", "val.bits_per_byte").startswith("+")


def test_a_setting_of_several_seeds_is_compared_by_the_paired_test(still: Browser) -> None:
    text = still.run("document.querySelector('#seeds-table tbody tr:nth-child(2)').textContent")
    assert text.startswith("learning_rate 0.001")
    assert "worse" in text


def test_controls_have_names_and_paper_has_no_controls(still: Browser) -> None:
    unnamed = """[...document.querySelectorAll("button, select, input")].filter((one) =>
        !(one.textContent.trim() || one.ariaLabel || one.labels?.[0]?.textContent.trim())).length"""
    assert still.run(unnamed) == 0
    still.call("Emulation.setEmulatedMedia", media="print")
    controls = "[...document.querySelectorAll('.controls, nav, .copy')]"
    assert still.run(f"{controls}.filter((one) => one.offsetParent).length") == 0
    still.call("Emulation.setEmulatedMedia", media="")


def test_means_over_seeds_can_be_switched_to_single_lines(still: Browser) -> None:
    click(still, "means over seeds")
    still.wait(f"({LINES}) === {2 * (1 + len(EXPERIMENTS))}")
    click(still, "means over seeds")
    still.wait(f"({LINES}) === {SERIES}")


def test_a_run_is_hidden_by_its_box_and_by_search(still: Browser) -> None:
    still.run("document.querySelector('#curves-legend input').click()")
    assert still.run(LINES) == SERIES - 2
    click(still, "all")
    assert still.run(LINES) == SERIES
    for text, lines in (("other-tok", 2), ("", SERIES)):
        still.run(f"""{{const box = document.querySelector("input[type=search]");
            box.value = "{text}"; box.dispatchEvent(new Event("input"));}}""")
        assert still.run(LINES) == lines


def test_differences_are_to_the_base_that_is_chosen_with_their_noise(still: Browser) -> None:
    assert difference(still, "HEAD") == ""
    assert difference(still, "plain-1") == "+0.0110 within noise"
    assert difference(still, "slow-2") == "+0.1120 worse"
    for base, found in (("slow-2", "−0.1120 better"), ("HEAD", "")):  # noqa: RUF001
        still.run(f"""{{const base = document.querySelector("#figures-controls select");
            base.value = "{base}"; base.dispatchEvent(new Event("change"));}}""")
        assert difference(still, base) == ""
        assert difference(still, "HEAD") == found


def test_the_table_is_sorted_by_keyboard(still: Browser) -> None:
    still.run("""[...document.querySelectorAll("#figures-table th button")]
        .find((one) => one.textContent === "validation loss").focus()""")
    for kind in ("keyDown", "keyUp"):
        still.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                   windowsVirtualKeyCode=13)  # fmt: skip
    assert names(still)[0] == "HEAD"
    assert names(still)[-1] == "other-tokens"
    header = "document.querySelector('#figures-table th[aria-sort]').getAttribute('aria-sort')"
    assert still.run(header) == "ascending"
    still.run("document.activeElement.click()")
    assert names(still)[0] == "other-tokens"


def test_commands_are_selected_and_copied(still: Browser) -> None:
    still.run("document.querySelectorAll('#reproduce details').forEach((one) => one.open = true)")
    still.run("[...document.querySelectorAll('button.copy')][1].click()")
    assert "dvc exp apply plain-1\ndvc repro" in still.run("getSelection().toString()")


def test_a_script_that_is_not_the_pages_own_does_not_run(browser: Browser, page: Path) -> None:
    if not browser.run("window.isStill"):  # what comes after opens it anew
        browser.open(page.as_uri())
    browser.run("document.body.append(Object.assign(document.createElement('script'),"
                " {textContent: 'hacked = 3'}))")  # fmt: skip
    assert browser.run("typeof hacked") == "undefined"
    assert any("Content Security Policy" in problem for problem in browser.problems)


def test_axes_are_logarithmic_on_request_and_count_tokens(shown: Browser) -> None:
    figure = 'report.charts.places.get("curves-chart").figure'
    click(shown, "log y")
    shown.wait(f"{figure}.y_scale.type === 'LogScale'")
    click(shown, "log x")
    shown.wait(f"{figure}.x_scale.type === 'LogScale'")
    shown.run("""{const by = [...document.querySelectorAll("#curves-controls select")][0];
        by.value = "tokens"; by.dispatchEvent(new Event("change"));}""")
    shown.wait(f"{figure}.below[0].axis_label === 'tokens'")
    x = shown.run("report.charts.places.get('curves-chart').lines.solid.data.xs[0]")
    assert x[-1] == 1600 * 16 * 128


def mouse(browser: Browser, kind: str, x: float, y: float) -> None:
    """Move, press or release the left button at a point of the window."""
    pressed = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
    browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)


def test_a_point_tells_its_values_and_a_drag_zooms(shown: Browser) -> None:
    x, y = shown.run("""(() => {
        const { views, series: [{ x, y }] } = report.charts.places.get("curves-chart");
        const { frame } = [...views][0];
        const box = document.querySelector("#curves-chart").getBoundingClientRect();
        return [box.x + frame.x_scale.compute(x.at(-1)), box.y + frame.y_scale.compute(y.at(-1))];
    })()""")
    mouse(shown, "mouseMoved", x, y)
    tooltip = """(() => {
        const look = (node) => [...node.children, ...(node.shadowRoot?.children ?? [])]
            .map((child) => child.classList.contains("bk-Tooltip")
                ? child.shadowRoot.textContent : look(child)).join("");
        return look(document.body);
    })()"""
    told = shown.wait(tooltip)
    for part in ("as the base (4 seeds)", "validation", "1,600", "3,276,800", "1.6030 ("):
        assert part in told
    figure = 'report.charts.places.get("curves-chart").figure'
    before = shown.run(f"{figure}.x_range.end - {figure}.x_range.start")
    mouse(shown, "mousePressed", x - 300, y - 200)
    for share in (0.5, 1):
        shown.call(
            "Input.dispatchMouseEvent", type="mouseMoved", button="left", buttons=1,
            x=x - 300 + 200 * share, y=y - 200 + 100 * share,
        )  # fmt: skip
    mouse(shown, "mouseReleased", x - 100, y - 100)
    shown.wait(f"{figure}.x_range.end - {figure}.x_range.start < {before / 2}")


def test_texts_of_users_are_shown_and_never_run(shown: Browser) -> None:
    assert shown.run("typeof hacked") == "undefined"
    assert "<b>evil" in names(shown)
    click(shown, "means over seeds")  # the legend and the base are written by the script
    shown.run("document.querySelectorAll('input.chosen').forEach((box) => box.click())")
    shown.wait(f"({LINES}) === {2 * (1 + len(EXPERIMENTS))}")
    assert shown.run("document.querySelector('#samples').textContent").count(EVIL) == 5
    assert shown.run("typeof hacked") == "undefined"
    assert shown.run("document.querySelectorAll('main b, main img').length") == 0


@pytest.mark.parametrize(("width", "dark"), [(390, True), (1280, False)])
def test_it_fits_a_phone_and_a_desk_in_light_and_dark(
    browser: Browser, page: Path, width: int, dark: bool
) -> None:
    browser.open(page.as_uri(), width=width, dark=dark)
    browser.wait("window.report?.drawn")
    assert browser.run("document.documentElement.scrollWidth") <= width
    background = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark
    assert contrasts(browser) == []
    click(browser, "light" if dark else "dark")
    assert browser.run("getComputedStyle(document.body).backgroundColor") != background


def contrasts(browser: Browser) -> list[str]:
    """Return the texts whose contrast with what is behind them is less than WCAG's 4.5 to 1."""
    return list(
        browser.run("""(() => {
    const light = (colour) => colour.match(/[0-9.]+/g).slice(0, 3).map((each) => each / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (node) => {
        const colour = getComputedStyle(node).backgroundColor;
        return colour === "rgba(0, 0, 0, 0)" ? behind(node.parentElement) : colour;
    };
    const weak = (node) => {
        const pair = [getComputedStyle(node).color, behind(node)].map(light);
        return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05) < 4.5;
    };
    const texts = "p, a, th, td, .note, .difference, summary, label, button, code";
    return [...document.querySelectorAll(texts)]
        .filter((node) => node.offsetParent && node.textContent.trim() && weak(node))
        .map((node) => node.textContent);
    })()""")
    )


def test_without_javascript_the_figures_are_all_there(page: Path) -> None:
    text = re.sub(r"<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for found in ("1.6010", "learning_rate 0.001", "dvc exp apply slow-3", "4,670,077", "at 1,600"):
        assert found in text


def test_what_the_cache_lacks_is_said_with_what_brings_it(page: Path, tmp_path: Path) -> None:
    with chdir(page.parent):
        text = make_page(collect_runs(), tmp_path)
    assert "dvc fetch" in text
    assert "dvc exp pull origin plain-1" in text


def test_the_command_says_how_much_it_wrote(page: Path) -> None:
    with chdir(page.parent):
        last = CliRunner().invoke(main, ["report", "--out", "mine.html"]).stderr.splitlines()[-1]
    assert re.fullmatch(r"report: 9 runs, \d\.\d MB in \d+\.\d s -> mine\.html", last)


def test_without_the_charts_library_one_line_brings_it(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chdir(page.parent):
        monkeypatch.setattr(sys, "path", [])
        with pytest.raises(ExtraError, match=r"bokeh is not .*'\.\[report\]'"):
            write_page(Path("none.html"))
        assert not Path("none.html").exists()
