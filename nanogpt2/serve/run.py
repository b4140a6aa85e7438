"""A server from its start to its end: address, token, models, signals."""

import asyncio
import gc
import ipaddress
import logging
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from nanogpt2.base.system.errors import ConfigError, DataError
from nanogpt2.base.system.files import exists, read_text
from nanogpt2.device.threads import share_cores
from nanogpt2.serve.app import Site, make_app
from nanogpt2.serve.connection import Connection

SWITCH = 0.0005  # seconds that the thread that draws waits while others run Python, at most
SHORTEST_TOKEN = 16  # characters
UNSENT = 1 << 17  # bytes that the system keeps for a client that does not read
NAMED = "NAME=FILE, or NAME=FILE,FILE for an ensemble, each NAME once"
LOOPBACK, HTTP = "127.0.0.1", 80


def read_token(file: Path | None, host: str) -> str | None:
    """Return the token in `file`; ConfigError where `host` is reached from elsewhere and needs one.

    And where it is too short to be none that is guessed.
    """
    if file is None:
        if not is_loopback(host):
            raise ConfigError(
                f"--host {host}: others reach it; --token-file FILE names a file with a token that"
                " they must know, such as the output of `openssl rand -hex 32`"
            )
        return None
    token = read_text(file).strip()
    if (
        len(token) < SHORTEST_TOKEN
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise ConfigError(
            f"--token-file {file}: allowed: one token of at least {SHORTEST_TOKEN} letters, digits"
            " and signs, such as the output of `openssl rand -hex 32`"
        )
    return token


def is_loopback(host: str) -> bool:
    """Return whether `host` can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that has `port`, a free one for 0; DataError where that cannot be."""
    where = f"--host {host} --port {port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}; choose another") from error
    family, _, _, _, address = found[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":  # where it would share the port with a server that has it
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT)
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise DataError(f"{where}: {error.strerror}; choose another") from error
    return listening


def names_of(host: str, port: int) -> frozenset[str] | None:
    """Return the names that a request may give a server on loopback; None elsewhere: any."""
    if not is_loopback(host):
        return None
    named = {"localhost", LOOPBACK, "[::1]", f"[{host}]" if ":" in host else host}
    plain = named if port == HTTP else set()  # for which clients leave it out
    return frozenset(f"{name}:{port}" for name in named) | plain


class Server(uvicorn.Server):
    """Lets what runs finish on a first signal, and ends at once on a second."""

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self.site = site
        self.failed: BaseException | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Draw and answer until a signal, or a fault, ends it."""
        engines = [served.engine for served in self.site.models.values()]
        drawing = [asyncio.ensure_future(engine.run()) for engine in engines]
        for task in drawing:
            task.add_done_callback(self._stop_on_fault)
        await super().serve(sockets)
        for task in drawing:
            task.cancel()

    def _stop_on_fault(self, task: "asyncio.Future[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            self.failed, self.should_exit = error, True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End: at first what is new is refused."""
        if self.site.is_ending:
            self.should_exit = self.force_exit = True
        for served in self.site.models.values():
            served.engine.is_ending = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop: also where it is ending, and nothing runs any more."""
        idle = all(served.engine.is_idle for served in self.site.models.values())
        if self.site.is_ending and idle and not self.server_state.tasks:
            self.should_exit = True
        return await super().on_tick(counter)


def run_server(site: Site, listening: socket.socket, *, say: Callable[[str], None]) -> None:
    """Serve `site` on `listening` until a signal ends it."""
    Connection.limits = site.limits
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    limits = site.limits
    config = uvicorn.Config(
        make_app(site),
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.head,
        timeout_keep_alive=int(limits.idle_time),
        backlog=limits.connections,
    )
    share_cores()
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not look at it between tokens
    listening.listen(limits.connections)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    say(f"http://{shown}:{port}/ serves {', '.join(site.models)}; Ctrl-C ends")
    server = Server(config, site)
    server.run(sockets=[listening])
    if server.failed:
        raise server.failed


def name_models(given: Sequence[str]) -> Mapping[str, Sequence[Path]]:
    """Return each model's files by its name: that before a `=`, or else the files' own.

    ConfigError where two have the same.
    """
    named: dict[str, Sequence[Path]] = {}
    for each in given:
        name, sign, rest = each.partition("=")
        if not sign or exists(each):
            name, rest = "", each
        listed = [rest] if exists(rest) else rest.split(",")
        paths = [Path(path) for path in listed if path.strip()]
        if not paths:
            raise ConfigError(f"--checkpoint {each}: names no file; allowed: {NAMED}")
        name = name or "+".join(path.stem for path in paths)
        if name in named or not name or "/" in name:
            raise ConfigError(
                f"--checkpoint {each}: the name {name!r} is another's already, or none; allowed:"
                f" {NAMED}"
            )
        named[name] = paths
    return named
