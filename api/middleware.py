"""Every request passes here: problems become JSON answers, and times are measured."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from aiohttp import web

from api.errors import Problem
from api.schemas import Failure
from infra import metrics

log = structlog.get_logger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: A thousand events of at most 1 KB; larger bodies are refused before they are read.
MAX_BODY_BYTES = 2 << 20


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    kind = "application/problem+json" if isinstance(body, Failure) else "application/json"
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type=kind, charset="utf-8", headers=headers
    )


def _failed(status: int, error: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    return answer(Failure.of(status, error, detail), status, headers)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised into a JSON answer, and measure."""
    began = time.perf_counter()
    response: web.StreamResponse
    try:
        response = await handler(request)
    except Problem as problem:
        response = _failed(problem.status, problem.reason, problem.detail, problem.headers)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = _failed(error.status, error.reason.lower().replace(" ", "_"), f"{request.method} {request.path}")
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except Exception:
        log.exception("request failed", method=request.method, route=_route(request))
        response = _failed(500, "internal", "the answer could not be computed; the log says why")
    metrics.REQUEST_SECONDS.labels(_route(request), f"{response.status // 100}xx").observe(time.perf_counter() - began)
    return response


def _route(request: web.Request) -> str:
    """The route's pattern: a label must not carry ids."""
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical
