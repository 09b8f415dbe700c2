"""What a release has written stays readable: records of each released layout are read as the values that they had then.

`released/RELEASE/TOPIC.jsonl` is written once, when the release is made, and never changed: a line that is no longer read as it
says is a log that can no longer be replayed. Of `evidence`, which one version's workers write and read among themselves, a later
release may refuse the layout instead, in words that say so.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.topics.reading import READ, read
from topics import catalog, evidence, interactions, recommendations
from topics.evidence import OtherRelease
from topics.json_schema import EVIDENCE, TOPICS
from topics.rejected import Reason
from topics.specs import DEAD, INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS

RELEASED = Path(__file__).parent / "released"
FILES = sorted(RELEASED.glob("*/*.jsonl"))


def lines(file: Path) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def corpus(topic: str) -> list[dict[str, Any]]:
    return [line for file in FILES if file.stem == topic for line in lines(file)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_released_records_are_read_as_they_were(file: Path) -> None:
    count = 0
    for line in lines(file):
        try:
            found = read(file.stem, line)
        except OtherRelease:
            assert file.stem == EVIDENCE
            continue
        assert {name: found.get(name) for name in line["read"]} == line["read"], line["what"]
        count += 1
    assert count or file.stem == EVIDENCE


@pytest.mark.parametrize("topic", TOPICS)
def test_each_topic_of_a_release_is_in_the_corpus(topic: str) -> None:
    assert topic in READ
    for release in RELEASED.iterdir():
        assert (release / f"{topic}.jsonl").exists()


def test_the_layouts_of_today_are_in_the_corpus() -> None:
    """A new layout needs a corpus of its own before it is released."""
    versions = {
        INTERACTIONS: interactions.SCHEMA_VERSION,
        VIDEOS: catalog.SCHEMA_VERSION,
        USERS: catalog.SCHEMA_VERSION,
    }
    for topic, version in versions.items():
        assert version in {line["read"].get("v") for line in corpus(topic)}, topic
    assert recommendations.SCHEMA_VERSION in {line["read"]["version"] for line in corpus(RECOMMENDATIONS)}
    assert evidence.SCHEMA_VERSION in {line["layout"] for line in corpus(EVIDENCE)}


def test_every_event_field_and_reason_is_in_the_corpus() -> None:
    events = [line["read"] for line in corpus(INTERACTIONS)]
    assert {event["event"] for event in events} == set(interactions.EVENTS)
    for topic in (INTERACTIONS, VIDEOS, USERS):
        struct = {INTERACTIONS: interactions.Interaction, VIDEOS: catalog.Video, USERS: catalog.User}[topic]
        said = [line["read"] for line in corpus(topic)]
        for name in struct.__struct_fields__:
            assert any(line.get(name) not in (None, "", [], {}, False) for line in said), f"{topic}: {name}"
    assert {line["read"]["reason"] for line in corpus(DEAD)} == set(map(str, Reason))


def test_a_changed_value_is_found() -> None:
    [first, *_] = corpus(INTERACTIONS)
    changed = first | {"value": first["value"].replace('"v1"', '"v2"')}
    assert read(INTERACTIONS, first)["video_id"] == "v1"
    assert read(INTERACTIONS, changed)["video_id"] != first["read"]["video_id"]
