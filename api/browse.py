"""What there is to pick from: videos by the words of their titles, and users that this worker holds in memory.

Flows in: a query string. Flows out: videos or ids of users. Always holds: parameters that are not known are refused, answers are
bounded, and nothing is changed by asking.
"""

import asyncio
from typing import Any

from api.middleware import answer
from api.requests import UserQuery, VideoQuery, read_query
from api.schemas import Found, FoundVideos, HeldUsers
from api.views import ApiView


class SearchVideos(ApiView):
    """`GET /v1/videos?query=&n=`."""

    async def get(self, request: Any) -> Any:
        """Videos whose titles or ids have words that begin like those of the query."""
        self.require_ready()
        wanted = read_query(request, VideoQuery)
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
        keys = self.headrace.engine.users.latest(read_query(request, UserQuery).n)
        return answer(HeldUsers([key.decode() for key in keys]))


BROWSE_ROUTES: dict[str, type[ApiView]] = {"/v1/videos": SearchVideos, "/v1/users": LatestUsers}
