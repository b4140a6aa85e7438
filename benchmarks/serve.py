"""What the server does under load: first token, many streams beside one, two minutes of clients.

    python benchmarks/serve.py --checkpoint checkpoints/best_model.pt
    python benchmarks/serve.py --seconds 20 --only clients
    python benchmarks/serve.py --screenshots docs --beside early.pt

The server is a process of its own, the clients are another: OpenAI's client, over loopback. Every
answer is compared with what `generate` writes alone with the same seed; of a client that vanishes,
what it had. Of the page there are pictures, with another model beside.
"""

import asyncio
import base64
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx2
import psutil
from openai import APIError, AsyncOpenAI, OpenAI

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Browser, chromium  # noqa: E402

from nanogpt2.decode.draw import Controls  # noqa: E402
from nanogpt2.model.checkpoint import load_checkpoint, tokenizer_of  # noqa: E402
from nanogpt2.sample.sample import Sampler  # noqa: E402

PROMPTS = (
    "KING:\n",
    "O Romeo, Romeo! wherefore art thou",
    "\n",
    "ROSALIND:\nI pray you, ",
    "To be",
)
PARTS = ("first", "streams", "clients")
PICTURES = {"serve-1280": (1280, 740, False), "serve-390-dark": (390, 720, True)}


@contextlib.contextmanager
def serving(checkpoint: Path, *options: str) -> Iterator[tuple[str, psutil.Process]]:
    """Serve `checkpoint` on a free port meanwhile; yield the address and the process."""
    command = [sys.executable, "-m", "nanogpt2", "serve", "--checkpoint", f"model={checkpoint}"]
    server = subprocess.Popen(
        [*command, "--port", "0", *options], stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert server.stdout is not None
    try:
        yield server.stdout.readline().split()[0], psutil.Process(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


@dataclass(frozen=True)
class Ask:
    """A request, and the text that `generate` writes for it."""

    prompt: str
    seed: int
    max_tokens: int
    temperature: float
    top_p: float
    expected: str = field(default="", compare=False)

    def fields(self) -> dict[str, Any]:
        """Return what the client sends."""
        names = ("prompt", "seed", "max_tokens", "temperature", "top_p")
        return {"model": "model", **{name: getattr(self, name) for name in names}}


def make_asks(checkpoint: Path, count: int, lengths: tuple[int, ...]) -> list[Ask]:
    """Return random requests with the texts that they have alone."""
    loaded = load_checkpoint(checkpoint, device="cpu")
    plain = Sampler(loaded.model, tokenizer_of(loaded, Path("tokenizer.json")), 1)
    chance, asks = random.Random(1), []
    for _ in range(count):
        temperature, top_p = chance.choice([0.0, 0.7, 1.0]), chance.choice([0.8, 1.0])
        length, seed = chance.choice(lengths), chance.randrange(2**53)
        prompt = chance.choice(PROMPTS)
        sampler = plain.changed(max_new_tokens=length, temperature=temperature, top_p=top_p)
        (expected,) = sampler.write_on([prompt], seed=seed)
        asks.append(Ask(prompt, seed, length, temperature, top_p, expected))
    assert Controls() == plain.controls
    return asks


# --- First token ---


def first_tokens(address: str, repeats: int) -> dict[str, list[float]]:
    """Return the milliseconds until the first token, by OpenAI's client and by curl."""
    client = OpenAI(base_url=f"{address}v1", api_key="none", max_retries=0, timeout=120)
    found: dict[str, list[float]] = {"openai": [], "curl": []}
    for _ in range(repeats):
        begun = time.perf_counter()
        with client.completions.create(
            model="model", prompt="KING:\n" * 20, max_tokens=50, stream=True
        ) as stream:
            next(piece for piece in stream if piece.choices[0].text)
            found["openai"].append(1000 * (time.perf_counter() - begun))
        begun = time.perf_counter()
        body = '{"prompt": "KING:\\n", "max_tokens": 50, "stream": true}'
        header = "Content-Type: application/json"
        command = ["curl", "-sN", f"{address}v1/completions", "-H", header, "-d", body]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
            assert curl.stdout is not None
            curl.stdout.readline()
            found["curl"].append(1000 * (time.perf_counter() - begun))
    return found


# --- Streams ---


async def stream_all(address: str, asks: list[Ask]) -> float:
    """Return the tokens a second of all `asks` at once, each a stream; each is checked."""
    async with AsyncOpenAI(
        base_url=f"{address}v1", api_key="none", max_retries=0, timeout=120
    ) as client:
        begun = time.perf_counter()
        texts = await asyncio.gather(*(stream(client, ask) for ask in asks))
        seconds = time.perf_counter() - begun
    assert texts == [ask.expected for ask in asks]
    return sum(ask.max_tokens for ask in asks) / seconds


async def stream(client: AsyncOpenAI, ask: Ask) -> str:
    """Return the text of one stream."""
    parts = []
    async for piece in await client.completions.create(**ask.fields(), stream=True):
        parts.append(piece.choices[0].text)
    return "".join(parts)


# --- Clients that come and go ---


@dataclass
class Tally:
    """What clients saw."""

    kinds: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    wrong: list[Ask] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)


async def come_and_go(
    address: str, asks: list[Ask], seconds: float, number: int, tally: Tally
) -> None:
    """Be one client after the other for so many seconds, some of which vanish half-way."""
    chance, end = random.Random(number), time.perf_counter() + seconds
    async with AsyncOpenAI(
        base_url=f"{address}v1", api_key="none", max_retries=0, timeout=120
    ) as client:
        while time.perf_counter() < end:
            ask, vanishes = chance.choice(asks), chance.random() < 0.3
            leave_at = chance.randrange(1, ask.max_tokens) if vanishes else ask.max_tokens + 1
            try:
                await be_client(client, ask, leave_at, tally)
            except APIError as error:
                tally.lost.append(f"{error!r}: {error.__cause__!r}")


async def be_client(client: AsyncOpenAI, ask: Ask, leave_at: int, tally: Tally) -> None:
    """Read an answer, or leave once so many characters have come."""
    begun, text, finish = time.perf_counter(), "", None
    async with await client.completions.create(**ask.fields(), stream=True) as pieces:
        async for piece in pieces:
            if not text:
                tally.first.append(1000 * (time.perf_counter() - begun))
            text += piece.choices[0].text
            finish = piece.choices[0].finish_reason or finish
            if len(text) >= leave_at:
                break
        else:
            leave_at = -1
    if leave_at < 0:
        right = text == ask.expected and finish == "length"
        tally.kinds["whole"] += 1
        tally.tokens += ask.max_tokens
    else:
        right = ask.expected.startswith(text)
        tally.kinds["vanished"] += 1
        tally.tokens += len(text)
    if not right:
        tally.wrong.append(ask)


async def many_clients(
    address: str, asks: list[Ask], seconds: float, process: psutil.Process, tally: Tally
) -> list[float]:
    """Let 50 clients come and go; return the server's memory in MB, each second."""
    memory: list[float] = []

    async def look() -> None:
        while True:
            await asyncio.sleep(1)
            memory.append(process.memory_info().rss / 1e6)

    looking = asyncio.ensure_future(look())
    await asyncio.gather(*(come_and_go(address, asks, seconds, each, tally) for each in range(50)))
    looking.cancel()
    return memory


def read_gauge(address: str, name: str) -> float:
    """Return a figure of /metrics."""
    lines = httpx2.get(f"{address}metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[-1])


# --- Pictures ---


def take_picture(browser: Browser, address: str, name: str, out: Path) -> None:
    """Write a picture of the page with a text of each model, one of its places chosen."""
    width, height, dark = PICTURES[name]
    browser.open(address, width=width, height=height, dark=dark)
    browser.wait("window.page")
    for field_, value in {"prompt": "ROMEO:", "length": 230, "temperature": 0.8}.items():
        browser.run(f"document.getElementById('{field_}').value = '{value}'")
    browser.run("document.getElementById('write').click()")
    browser.wait("page.panes.every((pane) => !pane.running && pane.written)")
    browser.run("page.panes.forEach((pane) => pane.shown.spans[66].span.click())")
    if width < 600:
        browser.run("document.getElementById('write').scrollIntoView()")
    time.sleep(0.3)
    picture = browser.call("Page.captureScreenshot", format="png")["data"]
    (out / f"{name}.png").write_bytes(base64.b64decode(picture))


@click.command()
@click.option("--checkpoint", type=Path, default="checkpoints/best_model.pt")
@click.option("--seconds", default=120.0, show_default=True, help="Of clients that come and go.")
@click.option("--pairs", default=5, show_default=True, help="Of one stream and fifty.")
@click.option("--tokens", default=3000, show_default=True, help="Of one stream.")
@click.option("--only", type=click.Choice(PARTS), help="One part alone.")
@click.option("--screenshots", type=Path, help="Folder for pictures, and nothing else.")
@click.option("--beside", type=Path, help="The other model of the pictures.")
def main(
    checkpoint: Path, seconds: float, pairs: int, tokens: int, only: str | None,
    screenshots: Path | None, beside: Path | None,
) -> None:  # fmt: skip
    """Print the figures of a server on this machine."""
    say = partial(print, flush=True)
    if screenshots is not None:
        other = f"early={beside or checkpoint}"
        with serving(checkpoint, "--checkpoint", other) as (address, _), chromium() as browser:
            for name in PICTURES:
                take_picture(browser, address, name, screenshots)
        return
    with serving(checkpoint) as (address, process):
        if only in (None, "first"):
            for client, times in first_tokens(address, 20).items():
                middle, worst = statistics.median(times), max(times)
                say(f"first token, {client}: {middle:.1f} ms, the slowest of 20 {worst:.1f} ms")
        if only in (None, "streams"):
            compare_streams(address, make_asks(checkpoint, 50, (tokens,)), pairs, say)
        if only in (None, "clients"):
            asks = make_asks(checkpoint, 100, (20, 100, 300, 600))
            tally, drawn = Tally(), read_gauge(address, "nanogpt2_tokens_total")
            begun = time.perf_counter()
            memory = asyncio.run(many_clients(address, asks, seconds, process, tally))
            lasted = time.perf_counter() - begun
            drawn = read_gauge(address, "nanogpt2_tokens_total") - drawn
            say(
                f"50 clients for {lasted:.0f} s: {dict(tally.kinds)}, {len(tally.wrong)} wrong,"
                f" {len(tally.lost)} lost {tally.lost[:3]}"
            )
            say(f"  {drawn / lasted:,.0f} tokens/s drawn, first token {summary(tally.first)}")
            tenth = max(1, len(memory) // 10)
            say(
                f"  memory: {statistics.median(memory[tenth : 2 * tenth]):.1f} MB after a tenth,"
                f" {statistics.median(memory[-tenth:]):.1f} MB at the end"
            )
            time.sleep(0.5)
            left = [read_gauge(address, f"nanogpt2_{name}{{") for name in ("running", "waiting")]
            say(f"  afterwards {left[0]:.0f} run and {left[1]:.0f} wait")
            assert not tally.wrong
            assert not tally.lost
            assert left == [0, 0]


def summary(times: list[float]) -> str:
    """Return the median and the worst in words."""
    late = statistics.quantiles(times, n=100)[-1]
    return f"{statistics.median(times):.0f} ms, of one in a hundred over {late:.0f} ms"


def compare_streams(address: str, asks: list[Ask], pairs: int, say: Any) -> None:
    """Print tokens a second of one stream and of fifty, in turn."""
    asyncio.run(stream_all(address, asks[:5]))
    ratios, ones, alls = [], [], []
    for pair in range(pairs):
        ones.append(asyncio.run(stream_all(address, asks[pair : pair + 1])))
        alls.append(asyncio.run(stream_all(address, asks)))
        ratios.append(alls[-1] / ones[-1])
    say(
        f"one stream {statistics.median(ones):,.0f} tokens/s, {len(asks)} streams"
        f" {statistics.median(alls):,.0f}: {statistics.median(ratios):.1f} times as many"
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    main()
