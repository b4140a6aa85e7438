"""The server's page in a real browser: two models side by side, a token, refusals."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from serving import TOKEN, Server, save_models, serving

from nanogpt2.model.checkpoint import load_checkpoint, tokenizer_of
from nanogpt2.sample.sample import Sampler

EVIL = "</script><img src=x onerror=hacked=1>"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(files: list[Path]) -> Iterator[Server]:
    with serving(files, token=TOKEN, tokens=100_000) as found:
        yield found


@pytest.fixture
def shown(browser: Browser, server: Server) -> Iterator[Browser]:
    browser.open(f"{server.address}/")
    browser.wait("window.page")
    browser.run(f"document.getElementById('token').value = '{TOKEN}'")
    yield browser
    assert browser.run("typeof hacked") == "undefined"
    assert all(asked.startswith(server.address) for asked in browser.requests)


def write(browser: Browser, prompt: str, **controls: object) -> list[str]:
    """Write from a prompt until all rests; return the texts."""
    for name, value in controls.items():
        browser.run(f"document.getElementById('{name}').value = '{value}'")
    browser.run(f"document.getElementById('prompt').value = {prompt!r}")
    browser.run("document.getElementById('write').click()")
    browser.wait("page.panes.every((pane) => !pane.running)")
    return texts(browser)


def texts(browser: Browser) -> list[str]:
    found = browser.run("page.panes.map((pane) => pane.shown.text.textContent)")
    return [str(text) for text in found]


def test_two_models_write_side_by_side_what_generate_writes(
    shown: Browser, files: list[Path]
) -> None:
    found = write(shown, "king\n", seed=3, length=60, temperature=0.8)
    for file, text in zip(files, found, strict=True):
        loaded = load_checkpoint(file, device="cpu")
        sampler = Sampler(loaded.model, tokenizer_of(loaded, Path("none")), 1)
        (expected,) = sampler.changed(max_new_tokens=60, temperature=0.8).write_on(
            ["king\n"], seed=3
        )
        assert text == "king\n" + expected
    assert shown.run("page.panes[0].shown.tokens.filter((each) => !each.drawn).length") == 5
    looks = "[...document.querySelectorAll('.text span')].map((span) => span.className)"
    assert len(set(shown.run(looks))) > 2  # given or not, and colours
    assert shown.problems == []


def test_a_place_tells_what_was_expected_and_another_choice_is_written_on_with(
    shown: Browser,
) -> None:
    write(shown, "king", length=30)
    shown.run("page.panes[1].shown.spans[2].span.click()")
    told = "document.querySelectorAll('.choices')[1]"
    assert str(shown.run(f"{told}.textContent")).startswith("\u201cn\u201d, token 3")
    assert shown.run(f"{told}.querySelectorAll('button').length") == 8
    before = texts(shown)
    shown.run(f"{told}.querySelectorAll('button')[3].click()")
    shown.wait("!page.panes[1].running")
    after = texts(shown)
    assert after[0] == before[0]
    assert after[1].startswith("ki")
    assert shown.run("page.panes[1].shown.tokens.length") == 33


def test_it_can_be_stopped_and_the_server_is_free(shown: Browser, server: Server) -> None:
    shown.run("document.getElementById('length').value = 100000")
    shown.run("document.getElementById('write').click()")
    shown.wait("page.panes.every((pane) => pane.shown.tokens.length > 50)")
    shown.run("document.getElementById('pause').click()")
    for _ in range(400):
        text = server.ask("GET", "/metrics", Authorization=f"Bearer {TOKEN}").body.decode()
        running = [x for x in text.splitlines() if x.startswith("nanogpt2_running{")]
        if all(x.endswith(" 0.0") for x in running):
            break
    assert running
    assert all(x.endswith(" 0.0") for x in running)


def test_what_is_refused_is_said(shown: Browser) -> None:
    write(shown, "KING \u00e9", length=5)  # capitals are unknown to the second
    problem = "document.getElementById('problem').textContent"
    assert "the tokenizer knows" in str(shown.run(problem))
    shown.run("document.getElementById('token').value = 'wrong'")
    write(shown, "king", length=5)
    assert shown.run(problem) == "this is not the server's token"
    assert shown.run("document.activeElement.id") == "token"
    shown.run("document.getElementById('length').value = 10**9")
    shown.run("document.getElementById('write').click()")
    assert str(shown.run(problem)).startswith("Length: ")


def test_hostile_prompts_are_text(shown: Browser) -> None:
    assert write(shown, EVIL, length=5)[0].startswith(EVIL)
    assert shown.run("document.querySelectorAll('img').length") == 0


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_it_fits(browser: Browser, server: Server, size: tuple[int, int]) -> None:
    browser.open(f"{server.address}/", width=size[0], height=size[1])
    browser.wait("window.page")
    browser.run(f"document.getElementById('token').value = '{TOKEN}'")
    write(browser, "x" * 300, length=40)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
