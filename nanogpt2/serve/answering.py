"""A request for completions being answered: whole, or piece by piece as server-sent events."""

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import Receive, Send

from nanogpt2.serve.completions.choices import as_choice
from nanogpt2.serve.completions.errors import Refusal, late
from nanogpt2.serve.completions.protocol import Completion
from nanogpt2.serve.served import Served

EVENTS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # a proxy passes pieces on as they come
)
WHOLE = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


class Gone(Exception):  # noqa: N818 - nobody's fault
    """The client has gone away."""


class Answering:
    """The answers to one request, drawn by the engine of its model and sent by `send`."""

    def __init__(self, served: Served, asked: Completion, send: Send) -> None:
        self.served, self.asked, self.send = served, asked, send
        self.job = served.make_job(asked)
        self.started = False
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
            "seed": asked.seed,  # with it the same answer can be had again
        }

    async def run(self, receive: Receive, seconds: float) -> None:
        """Answer within so many seconds, and free the places at once where the client goes away.

        Refusal where nothing has been sent yet, Gone where the client is.
        """
        try:
            async with asyncio.timeout(seconds):
                await unless_gone(receive, self._answer)
            self.served.metrics.seconds.observe(time.perf_counter() - self.job.begun)
        except TimeoutError as error:
            if not self.started:
                raise late(seconds) from error
            await self._send_failure(late(seconds))
        except Gone:
            self.served.metrics.gone.inc()
            raise
        finally:
            self.served.engine.drop(self.job)

    async def _answer(self) -> None:
        if self.asked.echo:
            await self.served.read(lambda: self.served.echo_prompts(self.asked, self.job))
        if not self.job.is_over:
            self.served.engine.submit(self.job)
        if self.asked.stream:
            await self._send_pieces()
        else:
            await self._send_whole()

    async def _send_whole(self) -> None:
        while not self.job.is_over:
            await self._news()
        if self.job.failed:
            raise self.job.failed
        answer = {**self.head, "choices": self._choices(), "usage": self._usage()}
        await self._start(WHOLE)
        await self._send(json.dumps(answer).encode(), more=False)

    async def _send_pieces(self) -> None:
        await self._start(EVENTS)
        while True:
            over = self.job.is_over
            if choices := self._choices():
                await self._send(b"".join(self._event([each]) for each in choices), more=True)
            if self.job.failed:
                await self._send_failure(self.job.failed)
                return
            if over:
                break
            await self._news()
        last = self._event([], usage=self._usage()) if self.asked.include_usage else b""
        await self._send(last + b"data: [DONE]\n\n", more=False)

    async def _news(self) -> None:
        await self.job.news.wait()
        self.job.news.clear()

    def _choices(self) -> list[dict[str, Any]]:
        names, with_ids = self.served.names, self.asked.return_token_ids
        found = (as_choice(answer, names, with_ids=with_ids) for answer in self.job.answers)
        return [choice for choice in found if choice]

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return f"data: {json.dumps({**self.head, 'choices': choices, **more})}\n\n".encode()

    def _usage(self) -> dict[str, int]:
        answers = self.job.answers
        read = sum(len(answer.drawing.prompt) for answer in answers[:: self.asked.n])
        drawn = sum(answer.count for answer in answers)
        return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}

    async def _start(self, headers: Any) -> None:
        self.started = True
        await self.send({"type": "http.response.start", "status": 200, "headers": [*headers]})

    async def _send(self, body: bytes, *, more: bool) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": more})

    async def _send_failure(self, refusal: Refusal) -> None:
        await self._send(f"data: {json.dumps(refusal.body())}\n\n".encode(), more=False)


async def unless_gone(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Do `work` to its end; Gone where the client goes away before."""
    doing = asyncio.ensure_future(work())
    watching = asyncio.ensure_future(_wait_until_gone(receive))
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Gone
        await doing
    finally:
        doing.cancel()
        watching.cancel()


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
