"""Who asks: a client, or another worker on behalf of one.

Flows in: a request's headers. Flows out: what another worker is shown of them, and the hop that the request is, if it is one. Always
holds: a request that carries the header of hops is answered here or not at all, whoever sent it, so no request goes round in circles.
The header lets nobody do anything: keys and limits are as for any other request.
"""

import re
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from aiohttp import web

from api.envelope import REQUEST_ID
from api.errors import misdirected

#: `GROUP ID`: workers of other groups, which have learned something else, do not answer; an id is that of one question, so that
#: asking twice is answered once.
HOP_HEADER = "X-Headrace-Hop"
_HOP = re.compile(r"([A-Za-z0-9._-]{1,130}) ([0-9a-f]{32})")
#: What the owner is shown: it asks for the same key. A request keeps its id.
_CREDENTIALS = ("Authorization", "X-API-Key")
#: Set where another worker has answered, and so has counted the request.
BY_PEER: web.RequestKey[bool] = web.RequestKey("by_peer", bool)
#: Says so to whoever asked.
ANSWERED_BY = "X-Answered-By"


class Caller(NamedTuple):
    """Who asks.

    Attributes
    ----------
    headers : to show to another worker
    hop : id of the hop, None for a client's own request
    request : what it came by
    """

    headers: Mapping[str, str] = {}
    hop: str | None = None
    request: web.Request | None = None

    @classmethod
    def of(cls, request: web.Request, group: str) -> "Caller":
        """Who sent it. Raises Problem (421) for a hop that is not of `group`, or none at all."""
        header = request.headers.get(HOP_HEADER)
        hop = None
        if header is not None:
            found = _HOP.fullmatch(header)
            if found is None or found[1] != group:
                raise misdirected(f"this worker is of the group {group}, and {HOP_HEADER} names another")
            hop = found[2]
        headers = {name: request.headers[name] for name in _CREDENTIALS if name in request.headers}
        return cls({**headers, "X-Request-Id": request[REQUEST_ID]}, hop, request)

    @property
    def gone(self) -> bool:
        """Whether nobody takes the answer any more."""
        if self.request is None:
            return False
        wire = self.request.transport
        return wire is None or wire.is_closing()


#: Somebody without a connection.
NOBODY = Caller()


def new_hop(group: str) -> str:
    """A value of the header for one question."""
    return f"{group} {uuid.uuid4().hex}"


def by_peer(request: web.Request, response: web.Response) -> web.Response:
    """The answer, of which it is said that another worker gave it."""
    request[BY_PEER] = True
    response.headers[ANSWERED_BY] = "peer"
    return response
