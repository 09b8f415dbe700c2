"""What there is to pick from: videos by the words of their titles, and users that this worker holds in memory.

Flows in: a query string. Flows out: videos or ids of users. Always holds: parameters that are not known are refused, answers are
bounded, and nothing is changed by asking.
"""

import asyncio
import re
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web

from api.errors import bad_request
from api.middleware import answer
from api.schemas import Found, FoundVideos, HeldUsers
from api.views import ApiView

MAX_FOUND = 100
MAX_USERS = 200

Asked = TypeVar("Asked", bound=msgspec.Struct)

_WHOLE = re.compile(r"[0-9]{1,9}")
_FIELD = re.compile(r"`\$\.(\w+)")


class VideoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of `GET /v1/videos`: `query`, words or their beginnings, or an id; and `n`, how many at most."""

    query: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_FOUND)] = 20


class UserQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of `GET /v1/users`: `n`, how many at most."""

    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_USERS)] = 50


def asked(request: web.Request, kind: type[Asked]) -> Asked:
    """The query string as `kind`, each parameter once. Raises Problem."""
    fields: dict[str, object] = {}
    for name, text in request.query.items():
        if name in fields:
            raise bad_request(f"bad_{name}", f"{name} is there more than once")
        fields[name] = int(text) if name == "n" and _WHOLE.fullmatch(text) else text
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        if "unknown field" in text:
            known = ", ".join(kind.__struct_fields__)
            raise bad_request("unknown_field", f"{text}; known: {known}") from error
        if "missing required field" in text:
            raise bad_request("missing_field", text) from error
        found = _FIELD.search(text)
        raise bad_request(f"bad_{found.group(1)}" if found else "wrong_type", text) from error


class SearchVideos(ApiView):
    """`GET /v1/videos?query=&n=`."""

    async def get(self, request: Any) -> Any:
        """Videos whose titles or ids have words that begin like those of the query."""
        self.require_ready()
        wanted = asked(request, VideoQuery)
        engine = self.headrace.engine
        while not engine.search.refresh():  # noqa: ASYNC110 - this is the work itself, not a wait for it
            # At the first search that is the whole catalogue: others have their turn in between.
            await asyncio.sleep(0)
        items = []
        for row in engine.search.find(wanted.query, wanted.n).tolist():
            video = engine.replica.video(row)
            title, length = (None, None) if video is None else (video.title or None, video.duration_seconds)
            items.append(Found(engine.replica.ids[row] or "", title, length))
        return answer(FoundVideos(items))


class LatestUsers(ApiView):
    """`GET /v1/users?n=`."""

    async def get(self, request: Any) -> Any:
        """Users in memory, those used last first: some to pick from, not all there are."""
        self.require_ready()
        keys = self.headrace.engine.users.latest(asked(request, UserQuery).n)
        return answer(HeldUsers([key.decode() for key in keys]))


BROWSE_ROUTES: dict[str, type[ApiView]] = {"/v1/videos": SearchVideos, "/v1/users": LatestUsers}
