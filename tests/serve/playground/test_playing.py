"""The page in a real browser, from a file and without a network, as people play with it."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser, chromium
from engine import SHAPE
from every import some
from variants import warmed

from nanogpt2.config.config import get_config
from nanogpt2.experiments.proof.card import Facts
from nanogpt2.serve.playground.cost import Cost, with_bits
from nanogpt2.serve.playground.page import Contents, choose_bits, make_page
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer

EVIL = "</script><script>hacked = 1</script><img src=x onerror='hacked = 2'>"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium here: the page is tested in one")
    with chromium() as found:
        found.call("Network.emulateNetworkConditions", offline=True, latency=0,
                   downloadThroughput=0, uploadThroughput=0)  # fmt: skip
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {**SHAPE, "vocab_size": 256, "architecture": "modern", "n_kv_head": 1}
    model = warmed(get_config(config)).eval()
    facts = Facts(
        EVIL, model.config.training_dict(), 0, "byte", commit="abc123", changed=[EVIL],
        hashes={EVIL: "0" * 64}, notes=[EVIL],
        dataset={"sources": [{"path": EVIL}], "characters": 1234, "tokens": 1234},
        figures={"val": {"loss": 1.5, "perplexity": 4.5, "bits_per_byte": 2.2, "accuracy": 0.5}},
    )  # fmt: skip
    contents = Contents(EVIL, facts, {"iter": 2000, "dataset": "f" * 64}, Cost(1e-4, 200, 190), 8)
    path = tmp_path_factory.mktemp("page") / "model.html"
    path.write_text(make_page(model, ByteTokenizer(), contents), encoding="utf-8")
    return path


@pytest.fixture
def shown(browser: Browser, page: Path) -> Iterator[Browser]:
    open_page(browser, page)
    yield browser
    assert browser.problems == []
    assert browser.requests == [page.as_uri()]
    assert browser.run("typeof hacked") == "undefined"


def open_page(browser: Browser, page: Path, **how: Any) -> None:
    browser.open(page.as_uri(), **how)
    browser.wait("window.page")


def write(browser: Browser, prompt: str = "KING:\n", **controls: object) -> str:
    """Write from a prompt until it rests; return the text."""
    for name, value in controls.items():
        browser.run(f"document.getElementById('{name.replace('_', '-')}').value = '{value}'")
    browser.run(
        f"document.getElementById('prompt').value = {prompt!r}, "
        "document.getElementById('write').click()"
    )
    return rest(browser)


def rest(browser: Browser) -> str:
    browser.wait("page.state.left === 0")
    return text(browser)


def text(browser: Browser) -> str:
    return str(browser.run("document.getElementById('text').textContent"))


def told(browser: Browser) -> str:
    return str(browser.run("document.getElementById('choices').textContent"))


def place(browser: Browser, at: int) -> tuple[float, float]:
    x, y = browser.run(f"""(() => {{
        const {{ span }} = page.state.spans[{at}];
        span.scrollIntoView({{ block: "center" }});
        const box = span.getClientRects()[0];
        return [box.x + box.width / 2, box.y + box.height / 2];
    }})()""")
    return x, y


def mouse(browser: Browser, kind: str, x: float, y: float) -> None:
    pressed = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
    browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)


def press(browser: Browser, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)


def test_text_comes_piece_by_piece_and_a_seed_repeats_it(shown: Browser) -> None:
    shown.run("""window.lengths = new Set(), window.watch = () => {
        lengths.add(page.state.tokens.length); requestAnimationFrame(watch);
    }, watch()""")
    first = write(shown, seed=3, length=1200)
    assert first.startswith("KING:\n")
    assert shown.run("page.state.tokens.length") == 1206
    assert shown.run("lengths.size") > 3
    for _ in range(3):  # it begins anew each time
        shown.run("document.getElementById('write').click()")
    assert rest(shown) == first
    assert write(shown, seed=4, length=50) != first[:56]


def test_it_stops_and_goes_on_with_the_same_text(shown: Browser) -> None:
    whole = write(shown, length=400)
    part = write(shown, length=150)
    assert shown.run("document.getElementById('pause').textContent") == "Continue"
    shown.run("document.getElementById('length').value = 250")
    shown.run("document.getElementById('pause').click()")
    assert rest(shown) == whole
    assert len(part) < len(whole)
    assert whole.startswith(part)
    shown.run("document.getElementById('length').value = 100000")
    shown.run("document.getElementById('pause').click()")
    shown.wait("page.state.tokens.length > 500")
    shown.run("document.getElementById('pause').click()")
    stopped = shown.run("page.state.tokens.length")
    assert shown.run("new Promise((then) => setTimeout(then, 60))") is None
    assert shown.run("page.state.tokens.length") == stopped


def test_a_place_tells_what_was_expected_by_mouse_tap_and_keyboard(shown: Browser) -> None:
    write(shown, prompt="KING", length=30)
    looks = "[...document.querySelectorAll('#text span')].map((span) => span.className)"
    assert len(set(shown.run(looks))) > 2  # given or not, and colours
    mouse(shown, "mouseMoved", *place(shown, 2))
    assert told(shown).startswith("\u201cN\u201d, token 3")
    assert "bits of surprise" in told(shown)
    assert shown.run("document.querySelectorAll('#choices button').length") == 8
    for kind in ("mousePressed", "mouseReleased"):
        mouse(shown, kind, *place(shown, 1))
    assert told(shown).startswith("\u201cI\u201d, token 2")
    mouse(shown, "mouseMoved", *place(shown, 3))
    assert told(shown).startswith("\u201cI\u201d, token 2")  # it was tapped, and stays
    shown.run("document.getElementById('text').focus()")
    press(shown, "ArrowRight")
    assert told(shown).startswith("\u201cN\u201d, token 3")
    press(shown, "Home")
    assert "nothing before it" in told(shown)


def test_another_choice_is_written_on_with(shown: Browser) -> None:
    write(shown, prompt="KING", length=30)
    shown.run("page.state.spans[2].span.click()")
    shown.run("document.querySelectorAll('#choices button')[3].click()")
    rest(shown)
    assert shown.run("page.state.tokens.length") == 33
    assert shown.run("page.state.tokens.filter((each) => !each.drawn).length") == 3
    assert text(shown).startswith("KI")


def test_attention_colours_what_the_place_was_drawn_from(shown: Browser) -> None:
    write(shown, prompt="abcdefgh", length=1, temperature=0)
    shown.run("""{const by = document.getElementById("colours");
        by.value = "attention"; by.dispatchEvent(new Event("change"));}""")
    shown.run("page.state.spans[5].span.click()")
    shown.wait("page.state.attention")
    assert shown.run("document.querySelectorAll('#text .seen').length") == 5
    rows = shown.run("page.state.attention.rows.map((row) => row.reduce((a, b) => a + b))")
    assert rows == pytest.approx([1] * 4)
    shares = """[...document.querySelectorAll('#text .seen')]
        .map((span) => span.style.getPropertyValue('--share'))"""
    every = shown.run(shares)
    shown.run("""{const by = document.getElementById("head");
        by.value = "1"; by.dispatchEvent(new Event("change"));}""")
    assert shown.run(shares) != every
    assert max(map(float, every)) == 0.65


def test_hostile_prompts_are_text(shown: Browser) -> None:
    assert write(shown, prompt=EVIL + "\u202e\x01", length=5).startswith(EVIL)
    assert shown.run("document.querySelectorAll('img').length") == 0


def test_controls_out_of_range_are_said_and_nothing_is_written(shown: Browser) -> None:
    shown.run("document.getElementById('top-p').value = '7'")
    shown.run("document.getElementById('write').click()")
    assert shown.run("document.getElementById('problem').textContent").startswith("Top-p: ")
    assert text(shown) == ""


def test_how_it_was_made_stands_there(shown: Browser) -> None:
    made = shown.run("document.getElementById('made').textContent")
    for part in ("abc123", "f" * 64, "2,000 steps", "1,234 characters", "1.5000", "8 bits", EVIL):
        assert part in made
    assert shown.run("document.querySelector('h1').textContent") == EVIL


UNNAMED = """[...document.querySelectorAll("button, select, input, textarea")].filter((one) =>
    !(one.textContent.trim() || one.ariaLabel || one.labels?.[0]?.textContent.trim())).length"""
CONTRAST = """(() => {
    const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3)
        .map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (node) => {
        const colour = getComputedStyle(node).backgroundColor;
        return colour === "rgba(0, 0, 0, 0)" ? behind(node.parentElement) : colour;
    };
    const seen = document.querySelectorAll("#legend span, #text span, button, p, dt, input");
    return Math.min(...[...seen]
        .map((node) => [light(getComputedStyle(node).color), light(behind(node))])
        .map((both) => (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05)));
})()"""


@pytest.mark.parametrize(
    ("size", "dark"),
    some(product(SIZES, [False, True]), *zip(SIZES, [False, True], strict=True)),
)
def test_it_fits_and_is_readable(browser: Browser, page: Path, size: str, dark: bool) -> None:
    width, height = SIZES[size]
    open_page(browser, page, width=width, height=height, dark=dark)
    write(browser, prompt="x" * 300, length=60)
    browser.run("page.state.spans[9].span.click()")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run(UNNAMED) == 0
    assert browser.run(CONTRAST) >= 4.5
    assert browser.problems == []


def test_without_webassembly_it_says_so_and_writes_the_same(browser: Browser, page: Path) -> None:
    open_page(browser, page)
    expected = write(browser, length=60, temperature=0)
    hook = browser.call("Page.addScriptToEvaluateOnNewDocument", source="delete WebAssembly")
    open_page(browser, page)
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=hook["identifier"])
    assert "several times as slow" in browser.run("document.getElementById('engine').textContent")
    assert write(browser, length=60, temperature=0) == expected


def test_a_character_that_the_model_does_not_know_is_named(
    browser: Browser, tmp_path: Path
) -> None:
    model = warmed(get_config({**SHAPE, "block_size": 8})).eval()
    contents = Contents("letters", None, {}, None, 16)
    path = tmp_path / "letters.html"
    path.write_text(make_page(model, CharTokenizer("\nabc"), contents), encoding="utf-8")
    open_page(browser, path)
    browser.run("document.getElementById('prompt').value = 'ab\u00e9'")
    browser.run("document.getElementById('write').click()")
    problem = browser.run("document.getElementById('problem').textContent")
    assert problem.startswith('The model has never seen "\u00e9". It knows')
    assert write(browser, prompt="ab", length=30).startswith("ab")
    assert write(browser, prompt="", length=3, window="exact").startswith("\n")


def test_the_page_of_the_default_model_has_less_than_a_megabyte() -> None:
    config = get_config(Path(__file__).parents[3] / "params.yaml")
    model = warmed(config)
    tokenizer = CharTokenizer("".join(map(chr, range(32, 32 + 69))))
    bits = choose_bits(model, n_tokens=tokenizer.size)
    assert bits == 8
    page = make_page(with_bits(model, bits), tokenizer, Contents("default", None, {}, None, bits))
    assert len(page.encode()) <= 1_000_000
