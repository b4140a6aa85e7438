"""The command import: the hub's own client, and a server that answers as the hub does."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import constants
from imports import ROOT
from safetensors.torch import save_file

from nanogpt2.__main__ import main
from nanogpt2.base.system import files
from nanogpt2.config.config import get_config
from nanogpt2.exchange.incoming.architectures import write_architecture
from nanogpt2.model.gpt import GPT

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """Serves the files of the folder `files` as the repository gpt2, and counts what is fetched."""

    files = Path()

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        parts = self.path.partition("?")[0].split("/")
        if "resolve" in parts:
            content = (self.files / parts[-1]).read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        else:
            found = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": COMMIT}
                for path in self.files.iterdir()
            ]
            siblings = [{"rfilename": each["path"]} for each in found]
            model = {"id": "gpt2", "sha": COMMIT, "siblings": siblings}
            content = json.dumps(found if "tree" in parts else model).encode()
            headers = {"Content-Type": "application/json"}
        self.send_response(200 if parts[3:4] != ["nothing"] else 404)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    shape = {"block_size": 16, "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 257}
    model = GPT(get_config({**shape, "device": "cpu"}))
    config, tensors = write_architecture(model.state_dict(), model.config)
    Hub.files = tmp_path / "served"
    files.write_json(Hub.files / "config.json", config)
    save_file(tensors, Hub.files / "model.safetensors")
    (Hub.files / "pytorch_model.bin").write_bytes(b"a pickle")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Return what gives the command import, to the hub `at` an address."""
    usual = {name: value for name, value in vars(constants).items() if isinstance(value, str)}

    def run(*arguments: str, at: str = endpoint) -> Result:
        for name, value in usual.items():  # what the library read in its environment
            value = value.replace(usual["HF_HOME"], str(tmp_path / "home"))
            monkeypatch.setattr(constants, name, value.replace(usual["ENDPOINT"], at))
        return CliRunner().invoke(main, ["import", *arguments], catch_exceptions=False)

    return run


def test_a_model_comes_into_a_folder_that_can_be_sampled_from(run: Callable[..., Result]) -> None:
    done = run("gpt2")
    assert done.stdout.startswith("gpt2: 7,680 parameters, 1 layers of 16, block_size 16, no token")
    assert "-S init_from=gpt2" in done.stdout
    names = {path.name for path in Path("gpt2").iterdir()}
    assert {"config.json", "model.safetensors"} <= names
    assert "pytorch_model.bin" not in names
    again = run("gpt2")
    assert again.exit_code == 1
    assert again.stderr == "gpt2: is there already; remove it, or name another with --to\n"


def test_what_cannot_be_had_is_one_line_and_leaves_nothing(run: Callable[..., Result]) -> None:
    done = run("gpt2", "--to", "there", at="http://127.0.0.1:9")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith("gpt2: cannot be had from the hub: ")
    (Hub.files / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    done = run("gpt2", "--to", "there")
    assert done.exit_code == 1
    assert 'model_type: found "bert"' in done.stderr.splitlines()[-1]
    assert not Path("there").exists()


def test_a_process_of_its_own_imports_a_model_and_says_in_a_line_what_it_cannot_have(
    endpoint: str, tmp_path: Path
) -> None:
    """Here other tests have imported modules of the library that a command has not."""

    def run(name: str, *, at: str) -> "subprocess.CompletedProcess[str]":
        new = {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": at, "HF_HOME": str(tmp_path / "home")}
        return subprocess.run(
            [sys.executable, "-m", "nanogpt2", "import", name, "--to", "there"],
            env={**os.environ, **new}, capture_output=True, text=True,
        )  # fmt: skip

    for name, at in (("gpt2", "http://127.0.0.1:9"), ("a/b/c", endpoint), ("nothing", endpoint)):
        done = run(name, at=at)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert done.stderr.startswith(f"{name}: cannot be had from the hub: ")
    assert run("gpt2", at=endpoint).stdout.startswith("there: 7,680 parameters")
    assert Path("there/model.safetensors").is_file()
