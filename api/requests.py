"""What may be asked for with a list: one struct for query strings and for JSON bodies.

Flows in: a query or a body. Flows out: a checked `ListRequest`, or a 400 that names the field. Always holds: everything is bounded,
and what is not known is refused: a filter that was misspelt and passed over would look like one that was met.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from aiohttp import web

from api.errors import Problem, bad_request
from state.filters import Filter
from state.lists import MAX_SESSION
from topics.ids import is_id

DEFAULT_N = 10
MAX_N = 200
MAX_EXCLUDED = 1_000
MAX_WAIT_MS = 5_000
#: Categories or languages.
MAX_WORDS = 64

_IDS = ("exclude", "session")
_LISTS = (*_IDS, "categories", "languages")
_FIELD = re.compile(r"`\$\.(\w+)")
_WHOLE = re.compile(r"[0-9]{1,18}")


_Words = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=128)], ...], msgspec.Meta(max_length=MAX_WORDS)
]


class ListRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a list is asked for with.

    Attributes
    ----------
    user_id : whose list; None for somebody without an account
    n : length
    exclude : videos that must not be in it
    categories, languages, min_duration_seconds, max_duration_seconds, published_after_ms : see `state.filters.Filter`
    session : videos that were just watched, the latest last; they count like the user's own latest positives
    min_offset : `offset` that the answer should have at least, as `POST /v1/events` returned it
    wait_ms : how long the answer may wait for that
    """

    user_id: str | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_N)] = DEFAULT_N
    exclude: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_EXCLUDED)] = ()
    session: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_SESSION)] = ()
    categories: _Words = ()
    languages: _Words = ()
    min_duration_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    max_duration_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    published_after_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    min_offset: Annotated[int, msgspec.Meta(ge=0)] = 0
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_WAIT_MS)] = 1_000

    @property
    def wanted(self) -> Filter:
        """What the videos must be."""
        return Filter(
            self.categories,
            self.languages,
            self.min_duration_seconds,
            self.max_duration_seconds,
            self.published_after_ms,
        )

    def checked(self) -> "ListRequest":
        """Itself. Raises Problem for what is no id."""
        if self.user_id is not None:
            require_id(self.user_id, "user_id")
        for name in _IDS:
            for video_id in getattr(self, name):
                require_id(video_id, name)
        return self


def require_id(value: str, name: str) -> str:
    """The id itself. Raises Problem where it is none."""
    if not is_id(value):
        raise bad_request("bad_id", f"{name} must be 1 to 128 bytes of UTF-8")
    return value


def from_query(request: web.Request, user_id: str | None = None) -> ListRequest:
    """Read a query string; `exclude` and `session` may be there many times, all else once. Raises Problem."""
    fields: dict[str, object] = {} if user_id is None else {"user_id": user_id}
    for name in dict.fromkeys(request.query):
        values = request.query.getall(name)
        if name in _LISTS:
            fields[name] = values
        elif len(values) > 1 or name in fields:
            raise bad_request(f"bad_{name}", f"{name} is there more than once")
        else:
            fields[name] = _value(name, values)
    return _converted(lambda: msgspec.convert(fields, ListRequest))


def _value(name: str, values: Sequence[str]) -> object:
    """A query's value: a whole number where that is what the field has."""
    [text] = values
    if name.endswith("_seconds"):
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not math.isfinite(seconds):
            raise bad_request(f"bad_{name}", f"{name} must be a number, got {text[:20]!r}")
        return seconds
    if name in ("n", "min_offset", "wait_ms", "published_after_ms"):
        if not _WHOLE.fullmatch(text):
            raise bad_request(f"bad_{name}", f"{name} must be a whole number, got {text[:20]!r}")
        return int(text)
    return text


async def from_body(request: web.Request) -> ListRequest:
    """Read a JSON body. Raises Problem."""
    body = await request.read()
    return _converted(lambda: msgspec.json.decode(body, type=ListRequest))


def _converted(read: Callable[[], ListRequest]) -> ListRequest:
    try:
        return read().checked()
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise bad_request("malformed_json", f"the body is no JSON: {error}") from error


def _explained(text: str) -> Problem:
    if "unknown field" in text:
        return bad_request("unknown_field", f"{text}; known: {', '.join(ListRequest.__struct_fields__)}")
    found = _FIELD.search(text)
    return bad_request(f"bad_{found.group(1)}" if found else "wrong_type", text)
