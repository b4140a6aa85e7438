"""What a request must be before anything looks at it: to this server, by who may, in time."""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanogpt2.serve.answering import Gone
from nanogpt2.serve.completions.errors import INVALID, Refusal
from nanogpt2.serve.completions.limits import Limits
from nanogpt2.serve.metrics import Metrics

OPEN = ("/", "/healthz")  # hold nothing of anybody's: no token is asked for
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class Guard:
    """Refuses foreign hosts and origins, and who has no token; counts what is answered."""

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str] | None, token: str | None, metrics: Metrics,
        paths: Sequence[str],
    ) -> None:  # fmt: skip
        self.app, self.hosts, self.token = app, hosts, token
        self.metrics, self.paths = metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self.paths else "other"

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(path, str(message["status"])).inc()
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        refusal = self.find_fault(scope["path"], Headers(scope=scope))
        if refusal is None:
            await self.app(scope, receive, send_on)
        else:
            await refuse(refusal)(scope, receive, send_on)

    def find_fault(self, path: str, headers: Mapping[str, str]) -> Refusal | None:
        """Return why a request is refused, or None."""
        if self.hosts is not None:
            # a name that leads here, of a page from elsewhere, is none of this server's
            host = headers.get("host", "")
            if host not in self.hosts:
                return Refusal(403, f"Host {host[:60]!r}: not a name of this server", None, "host")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            return Refusal(403, f"Origin {origin[:60]!r}: not this server's page", None, "origin")
        if self.token is None or path in OPEN:
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if not given:
            return Refusal(401, "no token: send `Authorization: Bearer TOKEN`", None, "no_token")
        known = hmac.compare_digest(given.encode(), self.token.encode())
        if kind.lower() != "bearer" or not known:
            return Refusal(401, "this is not the server's token", None, "invalid_api_key", INVALID)
        return None


def refuse(refusal: Refusal) -> Response:
    """Return the response that refuses; half a surrogate pair in it stays as it was written."""
    body = json.dumps(refusal.body())
    return Response(body, refusal.status, refusal.headers(), media_type="application/json")


class BadBody(Exception):  # noqa: N818 - leads to a refusal
    """A body of which something may still come."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self.refusal = refusal


async def read_body(headers: Mapping[str, str], receive: Receive, limits: Limits) -> bytes:
    """Return the body of a request; BadBody where it is too large, comes slowly or is no JSON."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        message = "Content-Type: allowed: application/json"
        raise BadBody(Refusal(415, message, None, "content_type"))
    large = Refusal(413, f"the body may have {limits.body:,} bytes", None, "too_large")
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > limits.body:
        raise BadBody(large)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_time):
            async for part in _parts(receive):
                body += part
                if len(body) > limits.body:
                    raise BadBody(large)
    except TimeoutError as error:
        message = f"the body did not come within {limits.body_time:g} seconds"
        raise BadBody(Refusal(408, message, None, "timeout")) from error
    return bytes(body)


async def refuse_body(refusal: Refusal, receive: Receive, send: Send, limits: Limits) -> None:
    """Send `refusal`, and let what still comes come for a while: else it would be lost with it."""
    response = refuse(refusal)
    headers = [*response.raw_headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    with suppress(TimeoutError, Gone):
        async with asyncio.timeout(limits.linger_time):
            async for _ in _parts(receive):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _parts(receive: Receive) -> AsyncIterator[bytes]:
    """Yield the parts of a body; Gone where its client is."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        yield message.get("body", b"")
        more = message.get("more_body", False)
