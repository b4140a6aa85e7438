"""How large the page that holds a model is, and how quickly it writes in a browser and in node.

    python benchmarks/page.py
    python benchmarks/page.py --loss
    python benchmarks/page.py --screenshots docs

The default model is `checkpoints/best_model.pt` where that is here; it and the presets nano and
small have random weights otherwise, which are as quick. A headless Chromium opens the page from
its file, without network: the time until it can be clicked, from the click to the first character,
and characters a second while 300 to 1,000 are written and shown, with WebAssembly and in plain
JavaScript. Node writes as many without showing them. Medians of five rounds. `--loss` is what
fewer bits a weight cost the default model on the beginning of its validation text.
"""

import argparse
import base64
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Browser, chromium  # noqa: E402
from engine import ask_pages  # noqa: E402
from variants import warmed  # noqa: E402

from nanogpt2.config.config import get_config  # noqa: E402
from nanogpt2.experiments.proof.facts import gather  # noqa: E402
from nanogpt2.model.checkpoint import Checkpoint, load_checkpoint  # noqa: E402
from nanogpt2.serve.playground.cost import with_bits  # noqa: E402
from nanogpt2.serve.playground.page import export_page  # noqa: E402
from nanogpt2.tokens.tokenizer import CharTokenizer  # noqa: E402

ROUNDS = 5
COUNTS = {"default": 1000, "nano": 1000, "small": 300}  # characters
BEST = ROOT / "checkpoints/best_model.pt"
TOKENIZER = CharTokenizer("\n" + "".join(map(chr, range(32, 32 + 68))))
PICTURES = {"page-1280": (1280, 720, False), "page-390": (390, 844, False)}
PICTURES |= {f"{name}-dark": (width, height, True) for name, (width, height, _) in PICTURES.items()}


def make_pages(folder: Path) -> dict[str, Path]:
    """Write the pages of the three models."""
    pages = {}
    sources: dict[str, str | Path] = {"default": ROOT / "params.yaml", "nano": "nano"}
    for name, source in {**sources, "small": "small"}.items():
        pages[name] = folder / f"{name}.html"
        facts = None
        if name == "default" and BEST.exists():
            checkpoint = load_checkpoint(BEST, device="cpu")
            facts = gather(BEST, name=name)
        else:
            model = warmed(get_config(source, device="cpu")).eval()
            checkpoint = Checkpoint(model, TOKENIZER, {})
        export_page(checkpoint, checkpoint.tokenizer or TOKENIZER, pages[name], facts)
    return pages


def write(browser: Browser, page: Path, count: int, *, plain: bool) -> tuple[float, float, float]:
    """Return the milliseconds until the page is ready and to the first character, and the speed."""
    browser.open("about:blank")
    browser.open(page.as_uri() + "#javascript" * plain)
    browser.wait("window.page")
    browser.run(f"document.getElementById('length').value = {count}")
    browser.run("document.getElementById('prompt').value = 'KING:\\nO'")
    browser.run("document.getElementById('write').click()")
    browser.wait("page.state.left === 0")
    ready, first, speed = browser.run("[page.ready, page.first, page.speed]")
    return ready, first, speed


def median(rows: Sequence[tuple[float, ...]]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def in_node(page: Path, count: int, *, plain: bool) -> float:
    ask = {"text": "KING:\nO", "count": count, "plain": plain}
    rounds = ask_pages([(page, [ask] * ROUNDS)])[0]
    return statistics.median(count / float(answer["seconds"]) for answer in rounds)


@torch.no_grad()
def show_losses(windows: int = 800) -> None:
    """Print the loss of the default model with whole weights, and with fewer bits each."""
    model = load_checkpoint(BEST, device="cpu").model
    length = model.config.block_size
    tokens = np.fromfile(ROOT / "data/prepared/val.bin", dtype=np.uint16)[: windows * length + 1]
    text = torch.from_numpy(tokens.astype(np.int64))
    idx, targets = (part.view(windows, length) for part in (text[:-1], text[1:]))
    for name, each in {
        "whole": model, "16 bits": with_bits(model, 16), "8 bits": with_bits(model, 8)
    }.items():  # fmt: skip
        print(f"{name}: {each.loss(idx, targets).item():.6f} nats a token", flush=True)


def take_picture(browser: Browser, page: Path, name: str, out: Path) -> None:
    """Write a picture of the page with a text, one of its places chosen."""
    width, height, dark = PICTURES[name]
    browser.open(page.as_uri(), width=width, height=height, dark=dark)
    browser.wait("window.page")
    browser.run("document.getElementById('prompt').value = 'KING:'")
    browser.run("document.getElementById('write').click()")
    browser.wait("page.state.left === 0")
    if dark:
        browser.run("""{const by = document.getElementById("colours");
            by.value = "attention"; by.dispatchEvent(new Event("change"));}""")
    browser.run("page.state.spans[66].span.click()")
    if dark or width < 600:
        browser.run("document.getElementById('write').scrollIntoView()")
    if dark:
        browser.wait("page.state.attention")
    time.sleep(0.3)
    picture = browser.call("Page.captureScreenshot", format="png")["data"]
    (out / f"{name}.png").write_bytes(base64.b64decode(picture))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screenshots", type=Path, help="Folder for pictures, and nothing else.")
    parser.add_argument("--loss", action="store_true", help="Print losses, and nothing else.")
    options = parser.parse_args()
    if options.loss:
        show_losses()
        return
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        pages = make_pages(Path(folder))
        if options.screenshots:
            for name in PICTURES:
                take_picture(browser, pages["default"], name, options.screenshots)
            return
        for name, page in pages.items():
            size = page.stat().st_size
            for plain in (False, True):
                rounds = [write(browser, page, COUNTS[name], plain=plain) for _ in range(ROUNDS)]
                ready, first, speed = median(rounds)
                kind = "plain JavaScript" if plain else "WebAssembly SIMD"
                print(
                    f"{name}: {size:,} bytes; {kind}: ready after {ready:.0f} ms, first character"
                    f" {first:.1f} ms, {speed:,.0f} characters/s shown,"
                    f" {in_node(page, COUNTS[name], plain=plain):,.0f} in node",
                    flush=True,
                )


if __name__ == "__main__":
    main()
