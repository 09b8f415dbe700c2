"""Scenarios: named presets of what a list is asked for with, kept in configuration.

Flows in: a JSON object of names and fields of a list request. Flows out: the fields that a request with that name starts from. Always
holds: what a preset says was checked when it was read, so that a mistake stops the start and not an answer; a request's own fields
come first.

    {"home": {"n": 20, "diversity": 0.3, "rotation": 0.5}, "kids": {"filter": "category == 'kids'", "max_per_author": 2}}
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from api.errors import Problem
from api.requests import PRESET, ListRequest

MAX_SCENARIOS = 100
_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")


class BadScenarios(ValueError):
    """The text is no object of presets; the message names the preset and the field."""


def parse(text: bytes) -> Mapping[str, Mapping[str, Any]]:
    """Read presets. Raises BadScenarios."""
    try:
        presets = msgspec.json.decode(text, type=dict[str, dict[str, Any]])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadScenarios(f"expected an object of objects: {error}") from error
    if len(presets) > MAX_SCENARIOS:
        raise BadScenarios(f"at most {MAX_SCENARIOS} scenarios, got {len(presets)}")
    for name, fields in presets.items():
        if not _NAME.fullmatch(name):
            raise BadScenarios(f"{name!r}: a name has 1 to 60 letters, digits, _ and -")
        try:
            require_preset(fields)
        except ValueError as error:
            raise BadScenarios(f"{name}: {error}") from error
    return presets


def require_preset(fields: Mapping[str, Any]) -> None:
    """Raise ValueError, with the field in its message, unless every list request may start from these."""
    if unknown := sorted(set(fields) - PRESET):
        raise ValueError(f"{', '.join(unknown)} cannot be preset; can be: {', '.join(sorted(PRESET))}")
    try:
        msgspec.convert(fields, ListRequest).checked().wish()
    except Problem as problem:
        raise ValueError(problem.detail) from problem
