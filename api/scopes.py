"""What each route asks of a key, in one table.

A mounted route that is not here needs the scope admin: whoever mounts one and forgets this file has closed it, not opened it, and
`tests/api/test_scopes.py` names it. HEAD is as GET. To list what anybody learns by asking (paths that are not there, methods that
a path does not have), any key will do.
"""

from typing import Final

from aiohttp import web

from api.keys import Client, Scope

#: No key is asked for. What is behind it tells nothing of users, videos or load.
OPEN: Final = None

NEEDED: dict[tuple[str, str], Scope | None] = {
    ("GET", "/v1/recommend"): Scope.READ,
    ("POST", "/v1/recommend"): Scope.READ,
    ("GET", "/v1/recommend/{user_id}"): Scope.READ,
    ("GET", "/v1/next/{video_id}"): Scope.READ,
    ("GET", "/v1/similar/{video_id}"): Scope.READ,
    ("GET", "/v1/trending"): Scope.READ,
    ("POST", "/v1/events"): Scope.WRITE,
    ("GET", "/v1/videos"): Scope.READ,
    ("PUT", "/v1/videos/{video_id}"): Scope.WRITE,
    ("DELETE", "/v1/videos/{video_id}"): Scope.WRITE,
    # Who there is, and what is known of somebody, is for those who have to answer for it: lists need neither.
    ("GET", "/v1/users"): Scope.ADMIN,
    ("GET", "/v1/users/{user_id}"): Scope.ADMIN,
    ("PUT", "/v1/users/{user_id}"): Scope.WRITE,
    ("DELETE", "/v1/users/{user_id}"): Scope.WRITE,
    # A load balancer asks these; `/readyz` shows what it counts to whoever may read the metrics.
    ("GET", "/healthz"): OPEN,
    ("GET", "/readyz"): OPEN,
    # The page, which asks for a key itself, and what is in the release anyway.
    ("GET", "/"): OPEN,
    ("GET", "/page/{name}"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    # How much there is of everything is a business's secret: its operator scrapes with a key, unless HEADRACE_METRICS_OPEN.
    ("GET", "/metrics"): Scope.ADMIN,
    ("GET", "/v1/experiments"): Scope.ADMIN,
}

#: Who asks; set for every request that was let in, but for those without a key to what is open.
CLIENT: web.RequestKey[Client] = web.RequestKey("client", Client)
#: Whether who asks may see what is counted; set for every request that was let in.
SEES_FIGURES: web.RequestKey[bool] = web.RequestKey("sees_figures", bool)


def needed(method: str, pattern: str) -> Scope | None:
    """The scope that a route needs, None for one that is open."""
    return NEEDED.get(("GET" if method == "HEAD" else method, pattern), Scope.ADMIN)
