"""Instances of a JSON Schema for hypothesis, of as much of the language as the topics' schemas use; any other word is an error."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

#: Words that ask for nothing.
_NOTES = {"$schema", "$id", "$defs", "title", "description", "default", "examples", "contentEncoding"}
_ASKED = {
    "object": {"properties", "required", "additionalProperties", "propertyNames"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum"},
    "number": {"minimum", "maximum"},
    "boolean": set(),
    "null": set(),
}
#: Texts with all that may go wrong in them but lone surrogates, which are no text in UTF-8.
_CHARACTERS = st.characters(codec="utf-8")


def instances(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema allows, as `json.loads` would give it."""
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of(*map(instances, schema["anyOf"]))
    kind = schema.get("type", "string")
    unknown = schema.keys() - _NOTES - _ASKED[kind] - {"type"}
    assert not unknown, f"no instances are made for {sorted(unknown)}"
    if kind == "object":
        return _objects(schema)
    if kind == "array":
        return _arrays(schema)
    if kind == "string":
        return _texts(schema)
    if kind == "integer":
        return st.integers(schema.get("minimum", -(2**53)), schema.get("maximum", 2**53))
    if kind == "number":
        lowest, highest = schema.get("minimum"), schema.get("maximum")
        return st.floats(lowest, highest, allow_nan=False, allow_infinity=False) | st.integers(lowest or 0, 2**53)
    return st.booleans() if kind == "boolean" else st.none()


def _objects(schema: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    made = {name: instances(place) for name, place in schema.get("properties", {}).items()}
    required = schema.get("required", ())
    known = st.fixed_dictionaries(
        {name: made[name] for name in required},
        optional={name: place for name, place in made.items() if name not in required},
    )
    more = schema.get("additionalProperties", False)
    if not isinstance(more, Mapping):
        return known
    names = _texts(schema.get("propertyNames", {}))
    return st.dictionaries(names, instances(more), max_size=4) if not made else known


def _arrays(schema: Mapping[str, Any]) -> st.SearchStrategy[list[Any]]:
    if "prefixItems" in schema:
        places = [instances(place) for place in schema["prefixItems"]]
        lengths = st.integers(schema["minItems"], len(places))
        return lengths.flatmap(lambda n: st.tuples(*places[:n]).map(list))
    least, most = schema.get("minItems", 0), schema.get("maxItems", 6)
    return st.lists(instances(schema["items"]), min_size=least, max_size=min(most, 6))


def _texts(schema: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"].replace("$", r"\Z"))
    return st.text(_CHARACTERS, min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 12), 200))
