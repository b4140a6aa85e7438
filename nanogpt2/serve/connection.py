"""What uvicorn leaves open of a connection: heads that come slowly, clients that do not read."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from nanogpt2.serve.completions.errors import Refusal
from nanogpt2.serve.completions.limits import Limits

LATE = Refusal(408, "the request's head did not come in time", None, "timeout")
FULL = Refusal(503, "too many connections", None, "overloaded", "server_error", retry_after=1)
MALFORMED = Refusal(400, "no HTTP request that can be read, or its head is too large", None, "http")


class Connection(H11Protocol):
    """A connection with a time for each head, and for what is sent to be read."""

    limits = Limits()
    _late: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _begun = False  # whether a byte of the next request is there

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; with too many connections say so and end this one."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._end(FULL)
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._begun = True
        super().data_received(data)

    def handle_events(self) -> None:
        """Do what has come asks for; wait for a head where no request is under way."""
        super().handle_events()
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()
        else:
            self._cancel("_late")
            self._begun = False

    def _wait_for_head(self) -> None:
        if self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(self.limits.head_time, self._end, LATE)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, in the form of all refusals."""
        self._end(MALFORMED)

    def pause_writing(self) -> None:
        """Give a client that does not read some time."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.stall_time, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        self._cancel("_stalled")
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._cancel("_late")
        self._cancel("_stalled")
        super().connection_lost(exc)

    def _cancel(self, name: str) -> None:
        timer = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)

    def _end(self, refusal: Refusal) -> None:
        """Send `refusal`, but to who has not said a word, and close the connection."""
        self._cancel("_late")
        if self.transport.is_closing():
            return
        if self._begun or refusal is FULL:
            self.transport.write(_as_response(refusal))
        self.transport.close()


def _as_response(refusal: Refusal) -> bytes:
    body = json.dumps(refusal.body()).encode()
    headers: dict[str, Any] = {
        "Content-Type": "application/json",
        "Content-Length": len(body),
        "Connection": "close",
        **refusal.headers(),
    }
    lines = [f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
