"""The OpenAPI 3.1 document, made from the structs that check requests and encode answers.

Flows in: the table of operations below. Flows out: one document. Always holds: a field's type, bounds and default are said once, in
its struct; a test goes over all mounted routes, so that none is missing here.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec

from api.experiments import ExperimentReport
from api.requests import CountRequest, ListRequest, UserQuery, VideoQuery
from api.schemas import (
    EventsTaken,
    Failure,
    FoundVideos,
    HeldUsers,
    KnownUser,
    Readiness,
    Recommendations,
    SimilarVideos,
    Status,
    Stored,
    Trending,
)
from api.scopes import OPEN, needed
from topics.catalog import User, Video
from topics.interactions import Interaction

OPENAPI = "3.1.0"
MAX_EVENTS = 1_000
#: Answers of all that may ask for a key: none or a wrong one, one without the scope, too many requests.
GUARDED = (401, 403, 429)
PROBLEM = "application/problem+json"
JSON = "application/json"

_PATH_PARAMETER = re.compile(r"\{(\w+)\}")
#: Names and what follows them, up to the next line that begins without a space.
_ATTRIBUTE = re.compile(r"^(\w+(?:, \w+)*) : (.*(?:\n +.*)*)", re.MULTILINE)
_REF = "#/components/schemas/{name}"


class Operation(NamedTuple):
    """What can be asked of one path by one method.

    Attributes
    ----------
    tag : groups operations
    answer : struct of the answer; a media type where it is no JSON
    status : of an answer that is what was asked for
    query : struct whose fields can be in the query string
    body : struct of the body, or a schema
    problems : statuses of other answers; 500 is none, and 503 is there for all that need the state
    """

    method: str
    path: str
    tag: str
    summary: str
    answer: type | str
    status: int = 200
    query: type[msgspec.Struct] | None = None
    body: type | Mapping[str, Any] | None = None
    problems: tuple[int, ...] = ()


_EVENT: Mapping[str, Any] = {"$ref": "#/components/schemas/Event"}
_EVENTS: Mapping[str, Any] = {
    "oneOf": [
        _EVENT,
        {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_EVENTS,
            # Each is judged alone: one that is no event is rejected by its index, and the others are taken.
            "items": {"anyOf": [_EVENT, {}]},
        },
    ]
}

OPERATIONS: tuple[Operation, ...] = (
    Operation("get", "/v1/recommend", "Lists", "A list for a user, or for a session", Recommendations,
              query=ListRequest, problems=(400, 431, 503)),
    Operation("post", "/v1/recommend", "Lists", "The same, asked for by a body", Recommendations,
              body=ListRequest, problems=(400, 413, 503)),
    Operation("get", "/v1/recommend/{user_id}", "Lists", "A list for a user", Recommendations,
              query=ListRequest, problems=(400, 431, 503)),
    Operation("get", "/v1/next/{video_id}", "Lists", "What goes on after a video", Recommendations,
              query=ListRequest, problems=(400, 404, 431, 503)),
    Operation("get", "/v1/similar/{video_id}", "Lists", "Videos that go with one, whoever asks", SimilarVideos,
              query=CountRequest, problems=(400, 404, 503)),
    Operation("get", "/v1/trending", "Lists", "What is watched now", Trending, query=CountRequest, problems=(400, 503)),
    Operation("post", "/v1/events", "Events", "Take one event or an array of them; 202 once Kafka has them", EventsTaken,
              202, body=_EVENTS, problems=(400, 413, 503)),
    Operation("get", "/v1/videos", "Catalogue", "Videos whose titles or ids have words that begin like the query's", FoundVideos,
              query=VideoQuery, problems=(400, 503)),
    Operation("put", "/v1/videos/{video_id}", "Catalogue", "Put a video into the catalogue, or change it", Stored, 202,
              body=Video, problems=(400, 413, 503)),
    Operation("delete", "/v1/videos/{video_id}", "Catalogue", "Take a video out of the catalogue and of all that is learned",
              Stored, 202, problems=(400, 503)),
    Operation("get", "/v1/users", "Users", "Some users to pick from: those in memory, used last first", HeldUsers,
              query=UserQuery, problems=(400, 503)),
    Operation("get", "/v1/users/{user_id}", "Users", "What is known of a user, and so what their lists are made from", KnownUser,
              problems=(400, 404, 421, 503)),
    Operation("put", "/v1/users/{user_id}", "Users", "Say what is known of a user beside events", Stored, 202, body=User,
              problems=(400, 413, 503)),
    Operation("delete", "/v1/users/{user_id}", "Users", "Erase a user: what is known of them, and what was learned until now",
              Stored, 202, problems=(400, 503)),
    Operation("get", "/v1/experiments", "Experiments", "What has followed the lists of each arm, with intervals", ExperimentReport,
              problems=(503,)),
    Operation("get", "/healthz", "Operation", "The process answers", Status),
    Operation("get", "/readyz", "Operation", "Shards are recovered and assigned; 503 until then", Readiness),
    Operation("get", "/metrics", "Operation", "Prometheus' text format", "text/plain"),
    Operation("get", "/openapi.json", "Operation", "This document", "application/json"),
    Operation("get", "/docs", "Operation", "This document as a page", "text/html"),
)  # fmt: skip


def document(operations: Sequence[Operation] = OPERATIONS) -> dict[str, Any]:
    """The whole document."""
    types: set[type] = {Failure, Interaction}
    for each in operations:
        types |= {part for part in (each.answer, each.query, each.body) if isinstance(part, type)}
    _, schemas = msgspec.json.schema_components(sorted(types, key=lambda kind: kind.__name__), ref_template=_REF)
    for schema in schemas.values():
        _describe(schema)
    schemas["Event"] = _event(schemas["Interaction"])
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method] = _operation(each, schemas)
    for inner in (CountRequest, UserQuery, VideoQuery, Interaction):
        schemas.pop(inner.__name__, None)
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "Headrace",
            "version": version("headrace"),
            "description": "Lists of videos from state that knows the last click.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _describe(schema: dict[str, Any]) -> None:
    """Give the fields what the docstring says of them, and the whole what is left of it."""
    about, _, listed = inspect.cleandoc(schema.get("description", "")).partition("\n\nAttributes\n----------\n")
    if "description" in schema:
        schema["description"] = about.strip()
    for names, text in _ATTRIBUTE.findall(listed):
        for name in names.split(", "):
            if name in schema["properties"]:
                schema["properties"][name]["description"] = " ".join(text.split())


def _event(interaction: Mapping[str, Any]) -> dict[str, Any]:
    """An event as HTTP takes it: its id and time may be missing."""
    properties = {name: dict(schema) for name, schema in interaction["properties"].items()}
    for name in ("event_id", "user_id", "video_id"):
        properties[name] |= _ID
    for name in ("session_id", "recommendation_id"):
        properties[name] = {"anyOf": [_ID, {"type": "null"}], "default": None}
    required = [name for name in interaction["required"] if name not in ("event_id", "at_ms")]
    about = "What a user did with a video. `event_id` and `at_ms` are filled in where they are missing."
    return {**interaction, "title": "Event", "description": about, "properties": properties, "required": required}


#: In bytes of UTF-8; JSON Schema can only count characters.
_ID: Mapping[str, Any] = {"type": "string", "minLength": 1, "maxLength": 128}


def _operation(each: Operation, schemas: Mapping[str, Any]) -> dict[str, Any]:
    named = _PATH_PARAMETER.findall(each.path)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": dict(_ID)} for name in named
    ]
    if each.query is not None:
        fields = schemas[each.query.__name__]["properties"]
        parameters += [
            _query_parameter(name, schema)
            for name, schema in fields.items()
            if name not in named and not (each.path.startswith("/v1/recommend/") and name == "user_id")
        ]
    name = "_".join([each.method, *re.findall(r"\w+", each.path.removeprefix("/v1"))])
    made: dict[str, Any] = {
        "operationId": name,
        "tags": [each.tag],
        "summary": each.summary,
        "responses": _responses(each),
    }
    scope = needed(each.method.upper(), each.path)
    if scope is not OPEN:
        made["security"] = [{"bearer": [str(scope)]}, {"header": [str(scope)]}]
        made["description"] = f"Where keys are asked for: one with the scope {scope}."
    if parameters:
        made["parameters"] = parameters
    if each.body is not None:
        schema = {"$ref": _REF.format(name=each.body.__name__)} if isinstance(each.body, type) else each.body
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return made


def _query_parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    if name == "boosts":
        text = {"type": "string", "minLength": 3, "maxLength": 1_020, "pattern": "^[0-9.]+:."}
        return {
            "name": "boost",
            "in": "query",
            "description": "FACTOR:EXPRESSION",
            "schema": {"type": "array", "items": text, "maxItems": schema["maxItems"]},
        }
    made = {key: value for key, value in schema.items() if key != "default" or value not in (None, [])}
    if "anyOf" in made:
        # Null is left out of a query.
        [kind] = [option for option in made.pop("anyOf") if option != {"type": "null"}]
        made |= kind
    about = made.pop("description", "")
    return {"name": name, "in": "query", "description": about, "schema": made}


def _responses(each: Operation) -> dict[str, Any]:
    if isinstance(each.answer, str):
        content: dict[str, Any] = {
            each.answer: {"schema": {"type": "object"} if each.answer == JSON else {"type": "string"}}
        }
    else:
        content = {JSON: {"schema": {"$ref": _REF.format(name=each.answer.__name__)}}}
    responses: dict[str, Any] = {str(each.status): {"description": HTTPStatus(each.status).phrase, "content": content}}
    if each.answer is Readiness:
        responses["503"] = {"description": "Not ready", "content": content}
    guarded = () if needed(each.method.upper(), each.path) is OPEN else GUARDED
    for status in sorted({*each.problems, *guarded}):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM: {"schema": {"$ref": _REF.format(name=Failure.__name__)}}},
        }
        if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            responses[str(status)]["headers"] = {
                "Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 0}}
            }
    return responses
