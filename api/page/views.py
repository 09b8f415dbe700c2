"""The live page's files: read once, served as they are.

Flows in: the files of this folder. Flows out: answers with an ETag, which a browser asks for again and gets nothing if it has them.
Always holds: the page runs nothing and asks nobody but this worker, which its Content-Security-Policy makes the browser see to. The
page is a client of the API like any other: nothing in the API depends on it.
"""

from pathlib import Path
from typing import Any, NamedTuple

import xxhash
from aiohttp import ETag, web

from api.errors import not_found
from api.views import ApiView

FOLDER = Path(__file__).parent
INDEX = "index.html"
#: By suffix; what has another one is no file of the page.
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept, and asked for again each time: files of two releases must not meet.
    "Cache-Control": "no-cache",
}


class PageFile(NamedTuple):
    """A file as it is served; `tag` names these very bytes."""

    body: bytes
    content_type: str
    tag: str

    def answer(self, request: web.Request) -> web.Response:
        """All of it, or 304 where the client has it already."""
        known = {tag.value for tag in request.if_none_match or ()}
        fresh = self.tag not in known and "*" not in known
        answer = web.Response(status=200 if fresh else 304, headers=HEADERS)
        if fresh:
            answer.body, answer.content_type, answer.charset = self.body, self.content_type, "utf-8"
        answer.etag = ETag(self.tag)
        return answer


def read_files(folder: Path = FOLDER) -> dict[str, PageFile]:
    """The page's files by name."""
    return {
        path.name: PageFile(body := path.read_bytes(), TYPES[path.suffix], xxhash.xxh3_128_hexdigest(body))
        for path in sorted(folder.iterdir())
        if path.suffix in TYPES
    }


class Page(ApiView):
    """`GET /`: the live page."""

    files: dict[str, PageFile]

    async def get(self, request: Any) -> Any:
        """The page itself."""
        return self.files[INDEX].answer(request)


class PagePart(ApiView):
    """`GET /page/{name}`: what the page is made of."""

    files: dict[str, PageFile]

    async def get(self, request: Any, name: str) -> Any:
        """A script, a style or a picture."""
        if name not in self.files:
            raise not_found(f"no file {name[:40]!r} of the page")
        return self.files[name].answer(request)


def page_routes(folder: Path = FOLDER) -> dict[str, type[ApiView]]:
    """Routes of the page, which is read now. Raises FileNotFoundError if it is not there."""
    files = read_files(folder)
    if INDEX not in files:
        raise FileNotFoundError(f"{folder / INDEX} is missing: install headrace anew")
    routes: dict[str, type[ApiView]] = {"/": Page, "/page/{name}": PagePart}
    return {pattern: type(view.__name__, (view,), {"files": files}) for pattern, view in routes.items()}
