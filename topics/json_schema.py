"""A JSON Schema for each topic, for producers and consumers that are not written in Python.

The structs that the codecs decode flow in, documents (draft 2020-12) flow out; `topics/schemas` has them as files. Always holds: a
file is what this module makes of the codec, which a test checks, and a field's type and bounds are said once, in its struct.

`python -m topics.json_schema` writes the files anew.

What JSON Schema cannot say, and the codecs ask for, is in `BEYOND`.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from topics import catalog, evidence, interactions, recommendations
from topics.catalog import User, Video
from topics.ids import MAX_ID_BYTES
from topics.interactions import Interaction
from topics.recommendations import MAX_PLACES, Recommended
from topics.rejected import Reason
from topics.specs import DEAD, INTERACTIONS, RECOMMENDATIONS, USERS, VIDEOS
from topics.versions import Active

FOLDER: Final = Path(__file__).parent / "schemas"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
#: Topics whose names begin with the app's, or the version's: by what comes behind it.
EVIDENCE, VERSIONS = "evidence", "versions"
#: By topic: the struct of a value, the version of its layout, and what a record is beside its value.
_VALUES: Final[dict[str, tuple[type[msgspec.Struct], int, str]]] = {
    INTERACTIONS: (
        Interaction,
        interactions.SCHEMA_VERSION,
        "Value of a record of the topic `interactions`: JSON. Key: `user_id` as UTF-8, in the partition that Kafka's default "
        "partitioner (murmur2) gives it.",
    ),
    VIDEOS: (
        Video,
        catalog.SCHEMA_VERSION,
        "Value of a record of the compacted topic `videos`: JSON. Key: the video's id as UTF-8. A record without a value takes the "
        "video out of the catalogue.",
    ),
    USERS: (
        User,
        catalog.SCHEMA_VERSION,
        "Value of a record of the compacted topic `users`: JSON. Key: the user's id as UTF-8. A record without a value says that "
        "nothing is known beside events.",
    ),
    RECOMMENDATIONS: (
        Recommended,
        recommendations.SCHEMA_VERSION,
        "Value of a record of the topic `recommendations`: MessagePack, described here as the array that it decodes to, bytes in "
        "base64. Key: the user's id as UTF-8. Written by workers alone.",
    ),
    EVIDENCE: (
        evidence.Packed,
        evidence.SCHEMA_VERSION,
        "Value of a record of the topic `{app}.{version}.evidence`: MessagePack, described here as the array that it decodes to, "
        "bytes in base64: packed columns. Written and read by workers of one version alone; the layout may change with any release.",
    ),
    VERSIONS: (
        Active,
        1,
        "Value of the record `active` of the compacted topic `{app}-versions`: JSON. Written by `headrace replay` and by "
        "`headrace versions`.",
    ),
}
#: Topics that have a schema.
TOPICS: Final = (*_VALUES, DEAD)
_WHOLE = "wrong_type: a whole number has no point and no exponent: 1, not 1.0, which is an integer to JSON Schema"
#: What a codec asks for beside the schema, by topic: each is refused with the reason that stands before it.
BEYOND: Final[dict[str, tuple[str, ...]]] = {
    INTERACTIONS: (
        f"too_large: a value has at most {interactions.MAX_VALUE_BYTES:,} bytes",
        f"bad_id: ids have at most {MAX_ID_BYTES} bytes of UTF-8; the schema counts characters",
        "bad_number: a number fits into a double",
        _WHOLE,
        "bad_time: `at_ms` is at most HEADRACE_FUTURE_TOLERANCE_S ahead of the record's arrival",
        "key_mismatch, wrong_partition: the key is the user's, and the record lies in its partition",
    ),
    VIDEOS: (
        f"too_large: a value has at most {catalog.MAX_VALUE_BYTES:,} bytes",
        "bad_number: a number fits into a double",
        _WHOLE,
        f"bad_id, wrong_partition: the key has 1 to {MAX_ID_BYTES} bytes, and the record lies in its partition",
    ),
    USERS: (
        f"too_large: a value has at most {catalog.MAX_VALUE_BYTES:,} bytes",
        "bad_number: a number fits into a double",
        _WHOLE,
        f"bad_id, wrong_partition: the key has 1 to {MAX_ID_BYTES} bytes, and the record lies in its partition",
    ),
    RECOMMENDATIONS: (_WHOLE, "`inputs` has a whole number of float32 for each video"),
    EVIDENCE: (_WHOLE, "columns have whole rows, which name no video that is not in `ids`"),
    VERSIONS: (_WHOLE,),
    DEAD: (),
}
#: Names and what follows them in a docstring's section, up to the next line that begins without a space.
_ATTRIBUTE = re.compile(r"^(\w+(?:, \w+)*) : (.*(?:\n +.*)*)", re.MULTILINE)
#: Base64 of 8 to 1,024 bytes.
_BASE64: Final = "^(?:B{4}){2,340}(?:B{4}|B{3}=|B{6}==)$".replace("B", "[A-Za-z0-9+/]")
_ID: Final = {"minLength": 1, "maxLength": MAX_ID_BYTES}


def file_of(topic: str) -> Path:
    """Where the schema of a topic of `TOPICS` lies."""
    return FOLDER / f"{topic}.schema.json"


def schema_of(topic: str) -> dict[str, Any]:
    """The schema of a topic of `TOPICS`."""
    if topic == DEAD:
        return {**_head(topic, 1), **_dead_letter()}
    struct, version, says = _VALUES[topic]
    made = msgspec.json.schema(struct)
    body = made["$defs"].pop(struct.__name__)
    others = made["$defs"]
    said = _said(struct)
    fields = struct.__struct_fields__
    if "prefixItems" in body:
        # Positions have no names of their own: the title of each is its field's.
        places = zip(fields, body["prefixItems"], strict=True)
        body["prefixItems"] = [{"title": name, **_told(said, name), **place} for name, place in places]
        by_name = dict(zip(fields, body["prefixItems"], strict=True))
    else:
        by_name = body["properties"] = {
            name: {**_told(said, name), **place} for name, place in body["properties"].items()
        }
    _tighten(topic, by_name, version)
    body.pop("title", None)
    document: dict[str, Any] = _head(topic, version) | body | ({"$defs": others} if others else {})
    document["description"] = says
    return document


def text_of(topic: str) -> str:
    """The file's text."""
    return json.dumps(schema_of(topic), indent=2, ensure_ascii=False) + "\n"


def _head(topic: str, version: int) -> dict[str, Any]:
    return {"$schema": DIALECT, "$id": f"urn:headrace:topic:{topic}:{version}", "title": topic}


def _said(struct: type) -> dict[str, str]:
    """What the struct's docstring says of its fields."""
    found = {}
    for names, text in _ATTRIBUTE.findall(inspect.getdoc(struct) or ""):
        found.update(dict.fromkeys(names.split(", "), " ".join(text.split())))
    return found


def _told(said: dict[str, str], name: str) -> dict[str, str]:
    return {"description": said[name]} if name in said else {}


def _tighten(topic: str, fields: dict[str, dict[str, Any]], version: int) -> None:
    """Add what codecs check after they have decoded."""
    if "v" in fields:
        fields["v"]["description"] = "version of this layout" + ("" if topic == VERSIONS else "; may be left out")
    if topic == INTERACTIONS:
        for name in ("event_id", "user_id", "video_id"):
            fields[name].update(_ID)
        for name in ("session_id", "recommendation_id"):
            fields[name]["anyOf"] = [
                place | _ID if place["type"] == "string" else place for place in fields[name]["anyOf"]
            ]
    elif topic == VIDEOS:
        for place in fields["embedding"]["anyOf"]:
            if place["type"] == "string":
                place["pattern"] = _BASE64
    elif topic == RECOMMENDATIONS:
        fields["version"]["const"] = version
        fields["video_ids"] |= {"minItems": 1, "maxItems": MAX_PLACES, "items": {"type": "string", **_ID}}
        fields["first"]["minimum"] = 0
    elif topic == EVIDENCE:
        fields["version"]["const"] = version
        fields["ids"]["items"] = {"type": "string", **_ID}
    elif topic == VERSIONS:
        # Python's end of text is not known elsewhere.
        named = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,60}$"}
        fields["version"].update(named)
        fields["previous"]["anyOf"] = [named, {"type": "null"}]


def _dead_letter() -> dict[str, Any]:
    """What the headers of a dead letter hold, as texts by name."""
    number = {"type": "string", "pattern": "^[0-9]{1,19}$"}
    fields = {
        "headrace.reason": {
            "type": "string",
            "minLength": 1,
            "examples": [str(reason) for reason in Reason],
            "description": "why the record was refused",
        },
        "headrace.detail": {"type": "string", "description": "what exactly was found"},
        "headrace.topic": {"type": "string", "minLength": 1, "description": "where the record lay"},
        "headrace.partition": number,
        "headrace.offset": number,
        "headrace.original_bytes": {
            **number,
            "description": "of key and value together; more than they have here if they were cut at 1,000,000 bytes",
        },
    }
    return {
        "description": "Headers of a record of the topic `interactions.dead`, each as UTF-8. Key and value are those of the "
        "record that was refused, untouched.",
        "type": "object",
        "properties": fields,
        "required": list(fields),
    }


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    for topic in TOPICS:
        file_of(topic).write_text(text_of(topic), encoding="utf-8")


if __name__ == "__main__":
    main()
