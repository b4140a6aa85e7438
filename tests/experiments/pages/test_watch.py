"""A training under way as it can be watched: in a browser, and in the terminal."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import warm
from browser import Browser
from imports import ROOT
from kept import make_project

from nanogpt2.base.system.errors import DataError
from nanogpt2.experiments.pages.run import plot_curve
from nanogpt2.experiments.pages.serve import PageServer
from nanogpt2.experiments.pages.terminal import draw_run, find_latest


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    make_project(root, [])
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def server(project: Path) -> Iterator[PageServer]:
    with PageServer((), 0) as found:
        yield found


def write_live(*losses: float) -> None:
    """Write the state of a training with an evaluation every 10 steps."""
    rows = [
        {"iter": 10 * at, "train_loss": loss - 0.1, "val_loss": loss}
        for at, loss in enumerate(losses, 1)
    ]
    me = psutil.Process()
    state = {
        **{"process": [me.pid, me.create_time()], "max_iters": 90, "params": {"seed": 7}},
        **{"history": rows, "iter": 10 * len(rows), "tokens_per_second": 12.0},
    }
    Path("logs").mkdir(exist_ok=True)
    Path("logs/live.json").write_text(json.dumps(state), encoding="utf-8")


def test_a_training_appears_and_goes_on_without_a_reload(
    browser: Browser, server: PageServer
) -> None:
    browser.open(f"http://127.0.0.1:{server.port}/")
    browser.wait("window.report?.drawn")
    browser.run("window.sameDocument = true; report.state.hidden.add('HEAD')")
    write_live(3.0)
    server.look()
    browser.wait("report.data.runs[0].kind === 'running'")
    write_live(3.0, 2.5)
    server.look()
    browser.wait("report.data.runs[0].curve.val_loss.length === 2")
    browser.wait("""report.charts.places.get("curves-chart").series
        .some((one) => one.name.startsWith("training in") && one.y.length === 2)""")
    assert browser.run("window.sameDocument && report.state.hidden.has('HEAD')")
    assert browser.problems == []
    assert {url.split("/")[2] for url in browser.requests if "//" in url[:9]} == {
        f"127.0.0.1:{server.port}"
    }


def ask(server: PageServer, host: str, path: str = "/") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    with closing(connection):
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status


def test_only_this_machines_own_names_are_answered(server: PageServer) -> None:
    for host in ("127.0.0.1", "localhost"):
        assert ask(server, f"{host}:{server.port}") == 200
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1", ""):
        assert ask(server, host) == 403
    assert ask(server, f"localhost:{server.port}", "/../params.yaml") == 404


def test_it_listens_on_loopback_alone(server: PageServer) -> None:
    listening = [each for each in psutil.Process().net_connections() if each.status == "LISTEN"]
    ours = [each.laddr.ip for each in listening if each.laddr.port == server.port]
    assert ours == ["127.0.0.1"]


def test_a_port_that_is_taken_is_named(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DataError, match=f"--port {port}: .*; choose another"):
            PageServer((), port)


def test_before_the_first_run_it_waits_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with PageServer((), 0) as server:
        assert b"no run here yet" in server.page
        write_live(3.0)
        server.look()
        assert b"training in the workspace" in server.page


def test_the_command_prints_its_address_and_ends_at_ctrl_c(project: Path) -> None:
    command = [warm.executable(), "-m", "nanogpt2", "report", "--watch"]
    pipe = subprocess.PIPE
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert re.match(r"http://127\.0\.0\.1:\d+/", line)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


# --- The terminal ---


def test_the_terminal_shows_the_last_run_or_else_the_one_under_way(project: Path) -> None:
    last = find_latest()
    assert last is not None
    drawn = draw_run(last)
    assert drawn.startswith("workspace\n")
    assert "v val loss 1.5940, t train loss 1.4140 at step 1,600" in drawn
    assert re.search("[\N{BRAILLE PATTERN BLANK}-\N{BRAILLE PATTERN DOTS-12345678}]{20}", drawn)
    write_live(3.0, 2.5)
    running = find_latest()
    assert running is not None
    assert draw_run(running).startswith("training in the workspace: step 20 of 90, 12 tokens/s\n")


def test_one_evaluation_is_no_curve_yet(project: Path) -> None:
    write_live(3.0)
    run = find_latest()
    assert run is not None
    assert draw_run(run).endswith("a curve needs two evaluations")


def test_the_plot_follows_what_is_new(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def wait(seconds: float) -> None:
        if len(shown) == 2:
            raise KeyboardInterrupt
        write_live(3.0, 2.5)

    monkeypatch.setattr(time, "sleep", wait)
    plot_curve(watch=True, show=lambda text: shown.append(str(text)), clear=lambda: None)
    assert [text.splitlines()[0] for text in shown if text] == [
        "workspace",
        "training in the workspace: step 20 of 90, 12 tokens/s",
    ]


def test_without_a_run_there_is_nothing_to_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no run here yet"):
        plot_curve(watch=False, show=print, clear=print)
