"""The page on loopback, for this machine alone: it is made anew when something has changed.

The page asks `/news?VERSION`, which answers with the new version as soon as there is one.
"""

import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from nanogpt2.base.system.errors import DataError, NanoGPT2Error
from nanogpt2.base.system.repository import current_commit, list_experiments
from nanogpt2.experiments.compare.collect import REPORT, collect_runs
from nanogpt2.experiments.compare.live import list_live_files
from nanogpt2.experiments.compare.runs import PATHS
from nanogpt2.experiments.pages.elements import text
from nanogpt2.experiments.pages.page import make_page

LOOPBACK = "127.0.0.1"
PATIENCE = 10.0  # seconds after which a page that waits for news is told that there are none


class PageServer:
    """Serves the page of all runs and `revisions` on `port`, or on a free one for 0.

    `look` makes the page anew where something has changed. DataError where the port is taken.
    """

    def __init__(self, revisions: Sequence[str], port: int) -> None:
        self.revisions = revisions
        self.changed = threading.Condition()
        self.version, self.page = 0, b""
        self.seen: tuple[object, ...] = ()
        try:
            self.http = _Server((LOOPBACK, port), _Handler)
        except OSError as error:
            raise DataError(f"--port {port}: {error.strerror}; choose another") from error
        self.http.pages = self
        self.port = int(self.http.server_address[1])

    def __enter__(self) -> "PageServer":
        self.look()
        threading.Thread(target=self.http.serve_forever, args=[0.1], daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.shutdown()
        self.http.server_close()

    def look(self) -> None:
        """Make the page anew where git, DVC or a training has changed what it shows."""
        seen = _look(self.revisions)
        if seen == self.seen:
            return
        try:
            page = make_page(collect_runs(self.revisions), Path(), live=self.version + 1)
        except NanoGPT2Error as error:  # such as before the first run
            page = (
                '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
                f'<meta http-equiv="refresh" content="2">\n<main><p>{text(error)}</p></main></html>'
            )
        with self.changed:
            self.version, self.page, self.seen = self.version + 1, page.encode("utf-8"), seen
            self.changed.notify_all()

    def wait(self, version: int) -> int:
        """Return the version of the page, once it is not `version` or PATIENCE is at its end."""
        with self.changed:
            self.changed.wait_for(lambda: self.version != version, timeout=PATIENCE)
            return self.version


def _look(revisions: Sequence[str]) -> tuple[object, ...]:
    """Return what tells that something has changed: commits, experiments, times of files."""
    paths = [*map(Path, PATHS), REPORT, *list_live_files()]
    times = []
    for path in paths:
        try:
            stat = path.stat()
            times.append((str(path), stat.st_mtime_ns, stat.st_size))
        except OSError:  # it is not there, or no more
            times.append((str(path), 0, 0))
    commits = tuple(experiment.commit for experiment in list_experiments())
    return current_commit(), commits, tuple(times), tuple(revisions)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # where two servers would share a port
    pages: PageServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say what goes wrong, but for a browser that has gone away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """Answers this machine's browser alone: a foreign name that leads here is refused."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page, or with its version once that is not the one asked for."""
        pages = self.server.pages
        path, _, query = self.path.partition("?")
        if self.headers.get("Host") not in {
            f"{name}:{pages.port}" for name in (LOOPBACK, "localhost")
        }:
            self._answer(HTTPStatus.FORBIDDEN, b"not a name of this machine\n", "text/plain")
        elif path == "/":
            self._answer(HTTPStatus.OK, pages.page, "text/html; charset=utf-8")
        elif path == "/news" and query.isdecimal():
            self._answer(HTTPStatus.OK, str(pages.wait(int(query))).encode(), "text/plain")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"not here\n", "text/plain")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Resource-Policy": "same-origin",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the terminal quiet."""
