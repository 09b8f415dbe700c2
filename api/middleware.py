"""Every request passes here: problems become JSON answers, and times are measured.

What stands around it is in `api.guard`.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from aiohttp import ClientConnectionResetError, hdrs, web

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


def failed(status: int, error: str, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """A problem as an answer: status, the kind of problem in one word, and a sentence."""
    return answer(Failure.of(status, error, detail), status, headers)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever is raised into a JSON answer, and measure."""
    began = time.perf_counter()
    response: web.StreamResponse
    try:
        response = await handler(request)
    except Problem as problem:
        response = failed(problem.status, problem.reason, problem.detail, problem.headers)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = failed(error.status, error.reason.lower().replace(" ", "_"), f"{request.method} {request.path}")
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except ClientConnectionResetError:
        raise  # whoever asked is gone, in the middle of a streamed answer: there is nobody to tell, and nothing failed
    except Exception:
        log.exception("request failed", method=method_of(request), route=route_of(request))
        response = failed(500, "internal", "the answer could not be computed; the log says why")
    metrics.REQUEST_SECONDS.labels(route_of(request), f"{response.status // 100}xx").observe(
        time.perf_counter() - began
    )
    return response


def route_of(request: web.Request) -> str:
    """The route's pattern: labels and logs must not carry ids."""
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical


def method_of(request: web.Request) -> str:
    """The method, if it is one: a client may write anything there, and logs must not carry it."""
    return request.method if request.method in hdrs.METH_ALL else "other"
