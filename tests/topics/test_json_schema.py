"""The schemas in `topics/schemas` say what the codecs do: what one takes or refuses, so does the other, but for what is listed."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topics.from_schema import instances
from topics.catalog import decode_user_value, decode_video_value
from topics.dead_letter import dead_letter, parse_dead_letter
from topics.evidence import BadBlock, OtherRelease, unpack
from topics.ids import MAX_ID_BYTES
from topics.interactions import decode_value
from topics.json_schema import BEYOND, EVIDENCE, FOLDER, TOPICS, VERSIONS, file_of, schema_of, text_of
from topics.recommendations import BadList, decode_list
from topics.rejected import Reason, Rejected
from topics.specs import DEAD, INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS, specs
from topics.versions import BadVersionRecord, decode_active, versions_topic

FILES = {topic: json.loads(file_of(topic).read_text(encoding="utf-8")) for topic in TOPICS}
VALID = {topic: jsonschema_rs.validator_for(schema) for topic, schema in FILES.items()}
#: Of each property; texts by a pattern take long to make.
FEW = settings(max_examples=50)
FEWER = settings(max_examples=20)
JSON_TOPICS = (INTERACTIONS, VIDEOS, USERS, VERSIONS)
DECODE: dict[str, Callable[[bytes], object]] = {
    INTERACTIONS: decode_value,
    VIDEOS: decode_video_value,
    USERS: decode_user_value,
    VERSIONS: decode_active,
}
#: What may stand in place of a field: each kind of value, at and beyond the bounds.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.integers(2**53 - 1, 2**53 + 1),
    st.sampled_from([-0.5, 0.0, 1.0, 1.5, 1e300, -1e300]),
    st.sampled_from(["", "a", "like", "é" * 64, "é" * 65, "a" * 128, "a" * 129, "b" * 500, "b" * 501, "v1\n"]),
    st.lists(st.sampled_from(["", "a", 1, None, "a" * 129]), max_size=3),
    st.just(["a"] * 65),
    st.dictionaries(st.sampled_from(["", "a", "a" * 129]), st.sampled_from([1, None, "x", [], {}, 0.5]), max_size=2),
)


def takes(topic: str, value: Any) -> Reason | bool:
    """Whether the codec takes a value; for events and catalogue the reason, if it does not."""
    try:
        DECODE[topic](json.dumps(value, ensure_ascii=False).encode())
    except Rejected as error:
        return error.reason
    except BadVersionRecord:
        return False
    return True


def beyond(topic: str, value: Any, reason: Reason | bool) -> bool:
    """Whether the codec refuses for what is listed as beyond the schema."""
    whole = [name for name, place in FILES[topic]["properties"].items() if "integer" in str(place)]
    numbers = [value.get(name) for name in (*whole, "v") if name not in ("context", "attributes")]
    if reason in (Reason.WRONG_TYPE, Reason.SCHEMA_VERSION, False) and any(type(number) is float for number in numbers):
        return True
    if topic != INTERACTIONS or reason is not Reason.BAD_ID:
        return False
    names = ("event_id", "user_id", "video_id", "session_id", "recommendation_id")
    texts = [value[name] for name in names if isinstance(value.get(name), str)]
    return any(len(text) <= MAX_ID_BYTES < len(text.encode()) for text in texts)


def test_every_topic_has_a_schema_and_no_file_is_left_over() -> None:
    assert sorted(FOLDER.glob("*")) == sorted(map(file_of, TOPICS))
    made = {spec.name for spec in specs("app", "v1", 4)} | {versions_topic("app")}
    # rows of changelogs are packed by `state.rows`, and nobody else reads or writes them
    described = {name for name in made if not name.endswith("-changelog")}
    whole = {EVIDENCE: "app.v1.evidence", VERSIONS: "app-versions"}
    assert {whole.get(topic, topic) for topic in TOPICS} == described


@pytest.mark.parametrize("topic", TOPICS)
def test_the_file_is_made_of_the_codec(topic: str) -> None:
    assert file_of(topic).read_text(encoding="utf-8") == text_of(topic), "run: python -m topics.json_schema"
    jsonschema_rs.meta.validate(FILES[topic])
    assert BEYOND.keys() == set(TOPICS)


@pytest.mark.parametrize("topic", JSON_TOPICS)
@FEW
@given(data=st.data())
def test_what_the_schema_allows_the_codec_takes(topic: str, data: st.DataObject) -> None:
    value = data.draw(instances(FILES[topic]))
    assert VALID[topic].is_valid(value)
    taken = takes(topic, value)
    assert taken is True or beyond(topic, value, taken), taken


@pytest.mark.parametrize("topic", JSON_TOPICS)
@FEW
@given(data=st.data())
def test_what_one_refuses_so_does_the_other(topic: str, data: st.DataObject) -> None:
    value = data.draw(instances(FILES[topic]))
    fields = sorted(FILES[topic]["properties"])
    changed = data.draw(st.dictionaries(st.sampled_from([*fields, "more"]), ODD, min_size=1, max_size=2))
    gone = data.draw(st.sets(st.sampled_from(fields), max_size=1))
    value = {name: part for name, part in (value | changed).items() if name not in gone}
    taken = takes(topic, value)
    assert VALID[topic].is_valid(value) == (taken is True) or beyond(topic, value, taken), taken


@pytest.mark.parametrize("topic", JSON_TOPICS)
@FEW
@given(value=ODD)
def test_what_is_no_object_is_refused_by_both(topic: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        assert not VALID[topic].is_valid(value)
        assert takes(topic, value) is not True


def packed(topic: str, value: list[Any]) -> bytes:
    """An array that the schema describes as MessagePack."""
    places = zip(value, FILES[topic]["prefixItems"], strict=False)
    return msgspec.msgpack.encode(
        [
            base64.b64decode(part) if place.get("contentEncoding") == "base64" and isinstance(part, str) else part
            for part, place in places
        ]
    )


def without_bytes(topic: str) -> st.SearchStrategy[list[Any]]:
    """Instances in which what is packed is empty: its columns are beyond the schema."""
    places = [
        {**place, "const": ""} if place.get("contentEncoding") == "base64" else place
        for place in FILES[topic]["prefixItems"]
    ]
    return instances(FILES[topic] | {"prefixItems": places})


def has_long_id(ids: list[str]) -> bool:
    return any(len(name.encode()) > MAX_ID_BYTES for name in ids)


@FEW
@given(without_bytes(RECOMMENDATIONS))
def test_lists_that_the_schema_allows_are_read(value: list[Any]) -> None:
    assert VALID[RECOMMENDATIONS].is_valid(value)
    if has_long_id(value[4]):
        return
    _, listed = decode_list(b"ann", packed(RECOMMENDATIONS, value))
    assert listed.video_ids == value[4]


@FEW
@given(without_bytes(RECOMMENDATIONS), st.integers(0, 10), ODD)
def test_lists_that_are_refused_are_refused_by_the_schema(value: list[Any], place: int, odd: Any) -> None:
    value[place : place + 1] = [odd]
    bytes_ = FILES[RECOMMENDATIONS]["prefixItems"][min(place, 10)].get("contentEncoding") == "base64"
    if isinstance(odd, float) or (bytes_ and isinstance(odd, str)):
        return  # beyond the schema
    try:
        decode_list(b"ann", packed(RECOMMENDATIONS, value))
    except BadList:
        ids = value[4] if isinstance(value[4], list) and all(isinstance(name, str) for name in value[4]) else []
        assert not VALID[RECOMMENDATIONS].is_valid(value) or has_long_id(ids)


@FEW
@given(without_bytes(EVIDENCE))
def test_blocks_that_the_schema_allows_are_read(value: list[Any]) -> None:
    assert VALID[EVIDENCE].is_valid(value)
    if not has_long_id(value[3]):
        assert unpack(packed(EVIDENCE, value)).ids == value[3]


@FEW
@given(without_bytes(EVIDENCE), st.sampled_from([0, 2, 3]), ODD)
def test_blocks_that_are_refused_are_refused_by_the_schema(value: list[Any], place: int, odd: Any) -> None:
    if isinstance(odd, float):
        return  # beyond the schema
    value[place] = odd
    try:
        unpack(packed(EVIDENCE, value))
    except (BadBlock, OtherRelease):
        ids = value[3] if isinstance(value[3], list) and all(isinstance(name, str) for name in value[3]) else []
        assert not VALID[EVIDENCE].is_valid(value) or has_long_id(ids)


@FEW
@given(st.sampled_from(Reason), st.text(max_size=300), st.integers(0, 255), st.integers(0, 2**63 - 1))
def test_headers_of_dead_letters_are_as_the_schema_says(
    reason: Reason, detail: str, partition: int, offset: int
) -> None:
    letter = dead_letter(b"k", b"v", Rejected(reason, detail), topic=INTERACTIONS, partition=partition, offset=offset)
    headers = {name: text.decode() for name, text in letter.headers}
    assert VALID[DEAD].is_valid(headers)


@FEWER
@given(instances(schema_of(DEAD)))
def test_headers_that_the_schema_allows_are_read(headers: dict[str, str]) -> None:
    letter = parse_dead_letter(b"k", b"v", [(name, text.encode()) for name, text in headers.items()])
    assert str(letter.offset) == headers["headrace.offset"].lstrip("0") or letter.offset == 0


@FEWER
@given(instances(schema_of(DEAD)), st.sampled_from(sorted(schema_of(DEAD)["required"])), st.booleans())
def test_headers_that_are_refused_are_refused_by_the_schema(headers: dict[str, str], name: str, drop: bool) -> None:
    if drop:
        del headers[name]
    else:
        headers[name] = "no number"
    try:
        parse_dead_letter(b"k", b"v", [(name, text.encode()) for name, text in headers.items()])
    except ValueError:
        assert not VALID[DEAD].is_valid(headers)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"user_id": "é" * 65}, Reason.BAD_ID),
        ({"context": {"a": "x" * 17_000}}, Reason.TOO_LARGE),
        ({"watch_seconds": 10**400}, Reason.BAD_NUMBER),
        ({"at_ms": 1.0}, Reason.WRONG_TYPE),
    ],
)
def test_what_is_beyond_the_schema_is_so(changes: dict[str, Any], reason: Reason) -> None:
    """When the schema learns to say it, the list of differences is wrong."""
    value = {"event_id": "e", "user_id": "u", "video_id": "v", "event": "like", "at_ms": 1} | changes
    assert VALID[INTERACTIONS].is_valid(value)
    assert takes(INTERACTIONS, value) is reason
    assert any(line.startswith(str(reason)) for line in BEYOND[INTERACTIONS])
