"""A server of a tiny model as a process of its own, and ways to talk to it."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import warm
from imports import ROOT
from variants import warmed

from nanogpt2.config.config import get_config
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.serve.completions.limits import Limits
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

TOKEN = "correct-horse-battery-staple"
SHAPE = {
    **{"device": "cpu", "block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32, "dropout": 0.0},
    **{"architecture": "modern", "vocab_size": 256},
}
LETTERS = "\n abcdefghijklmnopqrstuvwxyz"
CODE = """
import json, sys
from pathlib import Path
from nanogpt2.commands.model import open_model
from nanogpt2.serve.completions.limits import Limits
from nanogpt2.serve.run import open_socket, run_server
from nanogpt2.serve.site import open_site
files, limits, token = json.loads(sys.argv[1])
listening = open_socket("127.0.0.1", 0)
loaded = {Path(file).stem: open_model(Path(file), Path("none"), "cpu") for file in files}
site = open_site(loaded, Limits(**limits), host="127.0.0.1", listening=listening, token=token)
run_server(site, listening, say=lambda line: print(line, flush=True))
"""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def send(self, request: bytes) -> bytes:
        """Return all that is answered to `request` until the connection ends."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_all(connection)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> "Response":
        """Return the response to a request; a body that is no bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {
            "Host": f"127.0.0.1:{self.port}",
            "Connection": "close",
            **({} if body is None else {"Content-Type": "application/json"}),
            **({} if body is None else {"Content-Length": str(len(content))}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        request = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode()
        return Response.of(self.send(request + (b"" if body is None else content)))

    def complete(self, **fields: Any) -> "Response":
        return self.ask("POST", "/v1/completions", fields)


@dataclass(frozen=True)
class Response:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(cls, answer: bytes) -> "Response":
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(_chunks(body))
        return cls(int(first.split()[1]), headers, body)

    def json(self) -> Any:
        return json.loads(self.body)


def _chunks(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, rest = body.partition(b"\r\n")
        yield rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:  # it closed before all was read that we sent
        pass
    return b"".join(parts)


def save_models(folder: Path) -> list[Path]:
    """Write a model of bytes and one of letters; return their files."""
    models: dict[str, Tokenizer] = {"bytes": ByteTokenizer(), "letters": CharTokenizer(LETTERS)}
    for name, tokenizer in models.items():
        model = warmed(get_config(SHAPE))
        save_checkpoint(
            folder / f"{name}.pt", model.state_dict(), model.config, tokenizer=tokenizer, origin={}
        )
    return [folder / f"{name}.pt" for name in models]


@contextmanager
def serving(files: list[Path], *, token: str | None = None, **limits: Any) -> Iterator[Server]:
    """Serve `files` meanwhile; the process must end well."""
    told = json.dumps([[str(file) for file in files], asdict(Limits(**limits)), token])
    process = subprocess.Popen(
        [warm.executable(), "-c", CODE, told], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.wait()
    port = int(line.split("/")[2].partition(":")[2])
    try:
        yield Server(process, port)
    finally:
        process.terminate()
        try:
            code = process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        process.stdout.close()
    assert code == 0
