"""Refusals in the form of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""

import reprlib
from dataclasses import dataclass
from typing import Any

INVALID = "invalid_request_error"


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """What a client did wrong or has to wait for, with its HTTP status."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    kind: str = INVALID
    retry_after: int | None = None  # seconds

    def body(self) -> dict[str, Any]:
        """Return what is sent."""
        told = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": told}

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        headers = {"Cache-Control": "no-store"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers


def wrong(param: str, found: Any, allowed: str) -> Refusal:
    """Return the refusal of a value."""
    message = f"{param}: found {reprlib.repr(found)}; allowed: {allowed}"  # of any depth and length
    return Refusal(400, message, param, "invalid_value")


def unsupported(param: str, why: str) -> Refusal:
    """Return the refusal of what this server does not do."""
    return Refusal(400, f"{param}: not supported here; {why}", param, "unsupported_parameter")


def too_busy() -> Refusal:
    """Return the refusal of what finds the queue full."""
    message = "the queue is full; try again in a moment"
    return Refusal(429, message, None, "queue_full", "rate_limit_error", retry_after=1)


def ending() -> Refusal:
    """Return the refusal of what comes while the server ends."""
    message = "the server is ending: it finishes what runs and takes nothing new"
    return Refusal(503, message, None, "shutting_down", "server_error", retry_after=5)


def broken() -> Refusal:
    """Return the refusal of what a bug leaves without an answer."""
    return Refusal(500, "the server failed; its log says why", None, None, "server_error")


def late(seconds: float) -> Refusal:
    """Return the refusal of what took too long."""
    message = f"not answered within {seconds:g} seconds, the longest that a request may take here"
    return Refusal(504, message, None, "timeout", "server_error")
