"""Which web pages of other origins may ask (CORS): exact origins from the settings, none unless told.

Flows in: an `Origin` header. Flows out: the headers that let a browser show the answer to the page, or none. Cookies play no part:
a page sends its key itself.
"""

import re
from collections.abc import Iterable

from aiohttp import web

from api.errors import Problem

ANY = "*"
_ORIGIN = re.compile(r"https?://(?:[a-z0-9_.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")
ALLOWED_HEADERS = "Authorization, Content-Type, X-API-Key, X-Request-Id"
EXPOSED_HEADERS = "Retry-After, X-Request-Id"
#: A browser may remember what it was allowed; most cap it at two hours or less.
MAX_AGE_S = 600


class BadOrigins(ValueError):
    """The list of origins is malformed; the message says how."""


class Cors:
    """The origins that are allowed."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origins)
        self._any = ANY in self._origins

    @classmethod
    def parse(cls, text: str, *, with_keys: bool) -> "Cors":
        """Read origins, separated by commas.

        `*` allows every page. It is refused where no keys are asked for: then any page that somebody opens on this machine
        could read and write. With keys it gives a page nothing that it could not ask for through a server of its own.

        Raises
        ------
        BadOrigins
        """
        origins = [part.strip() for part in text.split(",") if part.strip()]
        for origin in origins:
            if origin == ANY:
                if not with_keys:
                    raise BadOrigins(
                        "* would let every web page use a worker that asks for no key: set HEADRACE_API_KEYS"
                    )
            elif not _ORIGIN.fullmatch(origin):
                raise BadOrigins(f"{origin!r} is no origin: expected https://HOST or https://HOST:PORT, in lower case")
        return cls(origins)

    @property
    def enabled(self) -> bool:
        """Whether any origin is allowed."""
        return bool(self._origins)

    def allows(self, origin: str) -> bool:
        """Whether pages of that origin may ask."""
        return self._any or origin in self._origins

    def dress(self, origin: str | None, response: web.StreamResponse) -> None:
        """Add what lets a browser show the answer to the page; to all answers, that they depend on who asks."""
        headers = response.headers
        if self._any:
            headers["Access-Control-Allow-Origin"] = ANY
        else:
            headers["Vary"] = f"{headers['Vary']}, Origin" if "Vary" in headers else "Origin"
            if origin is None or origin not in self._origins:
                return
            headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a browser that asks whether a page may; None to any other request.

        Raises
        ------
        Problem
            403: the page may not. The answer names neither the origins nor the methods that may.
        """
        headers = request.headers
        if request.method != "OPTIONS" or "Origin" not in headers or "Access-Control-Request-Method" not in headers:
            return None
        if not self.allows(headers["Origin"]):
            raise Problem(403, "origin_not_allowed", "pages of this origin may not ask (HEADRACE_CORS_ORIGINS)")
        missed = request.match_info.http_exception
        if not isinstance(missed, web.HTTPMethodNotAllowed):
            return None
        allowed = sorted(missed.allowed_methods - {"OPTIONS"})
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": ", ".join(allowed),
                "Access-Control-Allow-Headers": ALLOWED_HEADERS,
                "Access-Control-Max-Age": str(MAX_AGE_S),
            },
        )
