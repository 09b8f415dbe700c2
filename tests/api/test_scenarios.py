"""Scenarios are checked when they are read, and what a request says itself comes first."""

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from api.errors import Problem
from api.requests import from_query
from api.scenarios import BadScenarios, parse

HOME = b'{"home": {"n": 20, "diversity": 0.3, "categories": ["a", "b"]}, "kids": {"filter": "category == \\"kids\\""}}'


def test_a_request_starts_from_its_scenario() -> None:
    presets = parse(HOME)
    asked = from_query(make_mocked_request("GET", "/v1/recommend?scenario=home&n=3"), presets)
    assert (asked.n, asked.diversity, asked.categories) == (3, 0.3, ("a", "b"))
    kids = from_query(make_mocked_request("GET", "/v1/recommend?scenario=kids"), presets).wish()
    assert kids.wanted.expression is not None
    assert kids.wanted.expression.text == 'category == "kids"'
    with pytest.raises(Problem, match="known: home, kids"):
        from_query(make_mocked_request("GET", "/v1/recommend?scenario=hom"), presets)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "object"), (b"[]", "object"), (b'{"a": 1}', "object"), (b'{"a b": {}}', "a b"),
        (b'{"a": {"m": 1}}', "m cannot be preset"),
        (b'{"a": {"user_id": "x"}}', "user_id cannot"), (b'{"a": {"n": 0}}', r"n"), (b'{"a": {"diversity": "x"}}', "diversity"),
        (b'{"a": {"filter": "x =="}}', "filter"), (b'{"a": {"boosts": [{"filter": "y", "factor": 2}]}}', "boosts"),
        (b'{"a": {"exclude": [""]}}', "exclude"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(text: bytes, says: str) -> None:
    with pytest.raises(BadScenarios, match=says):
        parse(text)


def test_there_are_not_more_than_can_be_read() -> None:
    with pytest.raises(BadScenarios, match="at most 100"):
        parse(msgspec.json.encode({f"s{n}": {} for n in range(101)}))
