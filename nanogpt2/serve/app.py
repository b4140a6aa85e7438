"""The server's paths: the page, OpenAI's /v1/models and /v1/completions, health and metrics."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nanogpt2.serve.answering import Answering, Gone
from nanogpt2.serve.completions.errors import Refusal
from nanogpt2.serve.completions.limits import Limits
from nanogpt2.serve.completions.protocol import parse_completion
from nanogpt2.serve.guard import BadBody, Guard, read_body, refuse, refuse_body
from nanogpt2.serve.metrics import CONTENT_TYPE, Metrics
from nanogpt2.serve.served import Served


@dataclass(frozen=True)
class Site:
    """What is served, to whom."""

    models: Mapping[str, Served]
    page: str
    limits: Limits
    metrics: Metrics
    token: str | None = None
    hosts: frozenset[str] | None = None  # which a request may name; None: any

    @property
    def is_ending(self) -> bool:
        """Whether nothing new is taken."""
        return any(served.engine.is_ending for served in self.models.values())


def make_app(site: Site) -> Guard:
    """Return the application of `site`, to any server that speaks ASGI."""

    async def page(request: Request) -> Response:
        return HTMLResponse(site.page, headers={"Cache-Control": "no-store"})

    async def health(request: Request) -> Response:
        if site.is_ending:
            return JSONResponse({"status": "ending"}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:
        return Response(site.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def models(request: Request) -> Response:
        listed = [served.describe() for served in site.models.values()]
        return JSONResponse({"object": "list", "data": listed})

    async def model(request: Request) -> Response:
        return JSONResponse(find_model(site, request.path_params["name"]).describe())

    async def chat(request: Request) -> Response:
        raise Refusal(404, "no chat here: the models write on from a prompt: /v1/completions")

    routes = [
        Route("/", page),
        Route("/healthz", health),
        Route("/metrics", metrics),
        Route("/v1/models", models),
        Route("/v1/models/{name}", model),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/completions", Completions(site), methods=["POST"]),
    ]
    app = Starlette(
        routes=routes, exception_handlers={Refusal: _answer_refusal, HTTPException: _answer_http}
    )
    app.router.redirect_slashes = False
    paths = [route.path for route in routes]
    return Guard(app, hosts=site.hosts, token=site.token, metrics=site.metrics, paths=paths)


async def _answer_refusal(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return refuse(refusal)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return refuse(Refusal(error.status_code, message, None, "path"))


def find_model(site: Site, name: str | None) -> Served:
    """Return the model called `name`, the first for None; Refusal where there is none."""
    if name is None:
        return next(iter(site.models.values()))
    if name not in site.models:
        message = f"model {name[:60]!r}: not served here; there are: {', '.join(site.models)}"
        raise Refusal(404, message, "model", "model_not_found")
    return site.models[name]


class Completions:
    """POST /v1/completions."""

    def __init__(self, site: Site) -> None:
        self.site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; nothing where its client has gone away."""
        limits = self.site.limits
        with suppress(Gone):
            try:
                body = await read_body(Headers(scope=scope), receive, limits)
            except BadBody as bad:
                await refuse_body(bad.refusal, receive, send, limits)
                return
            asked = parse_completion(body, limits)
            served = find_model(self.site, asked.model)
            await Answering(served, asked, send).run(receive, limits.request_time)
