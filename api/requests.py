"""What may be asked for with a list: one struct for query strings and for JSON bodies.

Flows in: a query or a body. Flows out: a checked `ListRequest`, or a 400 that names the field. Always holds: everything is bounded,
and what is not known is refused: a filter that was misspelt and passed over would look like one that was met.
"""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from aiohttp import web

from api.cursor import MAX_CURSOR, BadCursor, decode_cursor
from api.errors import Problem, bad_request
from state.experiment import Arm, Experiment
from state.expression import MAX_LENGTH, BadExpression, Expression, parse
from state.filters import Filter
from state.lists import MAX_SESSION, Wish
from state.tuning import MAX_BOOSTS, MAX_FACTOR, Boost, Tuning
from topics.ids import is_id

DEFAULT_N = 10
MAX_N = 200
MAX_OFFSET = 800
#: Videos that a search finds.
MAX_FOUND = 100
MAX_EXCLUDED = 1_000
MAX_WAIT_MS = 5_000
#: Categories or languages.
MAX_WORDS = 64
#: Expressions whose parsed form is kept.
KEPT_EXPRESSIONS = 256

_IDS = ("exclude", "session")
_LISTS = (*_IDS, "categories", "languages")
#: What a scenario may set.
PRESET = frozenset(
    {
        "n", "exclude", "categories", "languages", "min_duration_seconds", "max_duration_seconds", "published_after_ms", "filter",
        "boosts", "diversity", "max_per_author", "max_per_category", "rotation", "explore",
    }
)  # fmt: skip
_FIELD = re.compile(r"`\$\.(\w+)")
_WHOLE = re.compile(r"[0-9]{1,18}")


_Words = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=128)], ...], msgspec.Meta(max_length=MAX_WORDS)
]
_Ids = tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=128)], ...]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_ExpressionText = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LENGTH)]
_Most = Annotated[int, msgspec.Meta(ge=1, le=MAX_N)]


class BoostRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Multiplies the odds of candidates.

    Attributes
    ----------
    filter : of which candidates, as in `filter`
    factor : above 1 raises them, below 1 lowers them
    """

    filter: _ExpressionText
    factor: Annotated[float, msgspec.Meta(ge=1 / MAX_FACTOR, le=MAX_FACTOR)]


class ListRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a list is asked for with.

    Attributes
    ----------
    user_id : whose list; None for somebody without an account
    n : length
    offset : places to leave out at the top of the list as it is now
    cursor : `next_cursor` of the page before: the list goes on without what was in it, whatever was learned since
    exclude : videos that must not be in it
    session : videos that were just watched, the latest last; they count like the user's own latest positives
    categories, languages : one of these, whatever their case
    min_duration_seconds, max_duration_seconds : inclusive
    published_after_ms : milliseconds since 1970, inclusive
    filter : an expression that must hold: category == "music" and duration < 600
    boosts : rules that multiply the odds of candidates
    diversity : from 0, by score alone, to 1, each place as unlike those above it as it can be
    max_per_author, max_per_category : places that videos of one author, or of one main category (the first), may have
    rotation : each list of the last half hour in which the user left a video alone multiplies its odds by 1 - rotation
    explore : share of the places that goes to videos that few have played; the worker's own share of lists where it is not given
    scenario : a preset of the configuration, of which fields given here are changed
    min_offset : `offset` that the answer should have at least, as `POST /v1/events` returned it
    wait_ms : how long the answer may wait for that
    """

    user_id: str | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_N)] = DEFAULT_N
    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_OFFSET)] = 0
    cursor: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_CURSOR)] | None = None
    exclude: Annotated[_Ids, msgspec.Meta(max_length=MAX_EXCLUDED)] = ()
    session: Annotated[_Ids, msgspec.Meta(max_length=MAX_SESSION)] = ()
    categories: _Words = ()
    languages: _Words = ()
    min_duration_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    max_duration_seconds: Annotated[float, msgspec.Meta(ge=0)] | None = None
    published_after_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    filter: _ExpressionText | None = None
    boosts: Annotated[tuple[BoostRule, ...], msgspec.Meta(max_length=MAX_BOOSTS)] = ()
    diversity: _Share = 0.0
    max_per_author: _Most | None = None
    max_per_category: _Most | None = None
    rotation: _Share = 0.0
    explore: _Share | None = None
    scenario: Annotated[str, msgspec.Meta(min_length=1, max_length=60)] | None = None
    min_offset: Annotated[int, msgspec.Meta(ge=0)] = 0
    wait_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_WAIT_MS)] = 1_000

    def wish(self, arm: Arm | None = None) -> Wish:
        """What the engine is asked, for a user in `arm`. Raises Problem for an expression or a cursor that cannot be read."""
        wanted = Filter(
            self.categories,
            self.languages,
            self.min_duration_seconds,
            self.max_duration_seconds,
            self.published_after_ms,
            None if self.filter is None else _expression("filter", self.filter),
        )
        tuning = Tuning(
            objective=None if arm is None else arm.objective,
            explore=self.explore,
            diversity=self.diversity,
            max_per_author=self.max_per_author,
            max_per_category=self.max_per_category,
            rotation=self.rotation,
            boosts=tuple(Boost(_expression("boosts", rule.filter), rule.factor) for rule in self.boosts),
            without=() if arm is None else arm.without,
        )
        try:
            shown = None if self.cursor is None else decode_cursor(self.cursor)
        except BadCursor as error:
            raise bad_request("bad_cursor", f"cursor: {error}") from error
        return Wish(self.n, self.offset, self.exclude, self.session, wanted, tuning, shown)

    def checked(self) -> "ListRequest":
        """Itself. Raises Problem for what is no id, no expression, no cursor, or no pair."""
        if self.user_id is not None:
            require_id(self.user_id, "user_id")
        for name in _IDS:
            for video_id in getattr(self, name):
                require_id(video_id, name)
        if self.cursor is not None and self.offset:
            raise bad_request("bad_offset", "offset and cursor are two ways to the next page: one of them")
        return self


class CountRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What lists that are the same for everybody are asked for with: their length."""

    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_N)] = DEFAULT_N


class VideoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of `GET /v1/videos`.

    Attributes
    ----------
    query : words or their beginnings, or an id
    n : how many at most
    """

    query: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_FOUND)] = 20


class UserQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of `GET /v1/users`: how many at most."""

    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_N)] = 50


Query = TypeVar("Query", CountRequest, VideoQuery, UserQuery)


def require_id(value: str, name: str) -> str:
    """The id itself. Raises Problem where it is none."""
    if not is_id(value):
        raise bad_request("bad_id", f"{name} must be 1 to 128 bytes of UTF-8")
    return value


@functools.lru_cache(maxsize=KEPT_EXPRESSIONS)
def _parsed(text: str) -> Expression:
    return parse(text)


def _expression(field: str, text: str) -> Expression:
    try:
        return _parsed(text)
    except BadExpression as error:
        raise bad_request(f"bad_{field}", f"{field}: {error}") from error


Presets = Mapping[str, Mapping[str, Any]]


def from_query(
    request: web.Request, presets: Presets, experiment: Experiment | None = None, **given: str
) -> ListRequest:
    """Read a query string, and what the path has given; lists may be there many times, all else once. Raises Problem.

    A boost is written `boost=FACTOR:EXPRESSION`.
    """
    return _converted(_fields(request, given), presets, experiment)


def read_query(request: web.Request, kind: type[Query]) -> Query:
    """Read a query string, each parameter once. Raises Problem."""
    try:
        return msgspec.convert(_fields(request, {}), kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), kind) from error


def _fields(request: web.Request, given: Mapping[str, str]) -> dict[str, object]:
    fields: dict[str, object] = dict(given)
    for name in dict.fromkeys(request.query):
        values = request.query.getall(name)
        if name in given:
            raise bad_request(f"bad_{name}", f"{name} is in the path already")
        if name in _LISTS:
            fields[name] = values
        elif name == "boost":
            fields["boosts"] = [_boost(text) for text in values]
        elif len(values) > 1:
            raise bad_request(f"bad_{name}", f"{name} is there more than once")
        else:
            fields[name] = _value(name, values)
    return fields


def _boost(text: str) -> dict[str, object]:
    factor, colon, expression = text.partition(":")
    if not colon:
        raise bad_request("bad_boost", f"boost is written FACTOR:EXPRESSION, got {text[:40]!r}")
    return {"factor": _number("boost", factor), "filter": expression.strip()}


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise bad_request(f"bad_{name}", f"{name} must be a number, got {text[:20]!r}")
    return number


_NUMBERS = frozenset({"min_duration_seconds", "max_duration_seconds", "diversity", "rotation", "explore"})
_WHOLE_NUMBERS = frozenset(
    {"n", "offset", "min_offset", "wait_ms", "published_after_ms", "max_per_author", "max_per_category"}
)


def whole_number(name: str, text: str) -> int:
    """A whole number of a query. Raises Problem."""
    if not _WHOLE.fullmatch(text):
        raise bad_request(f"bad_{name}", f"{name} must be a whole number, got {text[:20]!r}")
    return int(text)


def _value(name: str, values: Sequence[str]) -> object:
    """A query's value: a number where that is what the field has."""
    [text] = values
    if name in _NUMBERS:
        return _number(name, text)
    return whole_number(name, text) if name in _WHOLE_NUMBERS else text


async def from_body(request: web.Request, presets: Presets, experiment: Experiment | None = None) -> ListRequest:
    """Read a JSON body. Raises Problem."""
    body = await request.read()
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise bad_request("malformed_json", f"the body is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise bad_request("wrong_type", "the body must be an object")
    return _converted(fields, presets, experiment)


def _converted(fields: dict[str, object], presets: Presets, experiment: Experiment | None) -> ListRequest:
    """The request: its own fields, then those of its scenario, then those of the user's arm."""
    user_id = fields.get("user_id")
    of_arm = experiment.arm_of(user_id).preset if experiment is not None and isinstance(user_id, str) else {}
    scenario = fields.get("scenario")
    if isinstance(scenario, str):
        preset = presets.get(scenario)
        if preset is None:
            known = ", ".join(sorted(presets)) or "none is configured"
            raise bad_request("bad_scenario", f"no scenario {scenario[:60]!r}; known: {known}")
        fields = {**preset, **fields}
    fields = {**of_arm, **fields}
    try:
        return msgspec.convert(fields, ListRequest).checked()
    except msgspec.ValidationError as error:
        raise _explained(str(error), ListRequest) from error


def _explained(text: str, kind: type[msgspec.Struct]) -> Problem:
    if "unknown field" in text:
        return bad_request("unknown_field", f"{text}; known: {', '.join(kind.__struct_fields__)}")
    found = _FIELD.search(text)
    if found:
        return bad_request(f"bad_{found.group(1)}", text)
    return bad_request("missing_field" if "missing required field" in text else "wrong_type", text)
