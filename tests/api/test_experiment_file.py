"""The file of an experiment is checked when it is read, and what a request and its scenario say comes before what the arm says."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from agents.worker import create_app
from api.experiment_file import BadExperiment, parse
from api.requests import from_query
from infra.settings import Settings, SettingsError
from online_models.ranker import GROUPS

GOOD: dict[str, Any] = {
    "name": "home-mix",
    "arms": [
        {"name": "control", "share": 8},
        {"name": "mixed", "share": 1, "preset": {"diversity": 0.3, "n": 7}},
        {"name": "liked", "share": 1.0, "objective": "choice=1,like=0.5", "without": ["markov", "bias"]},
    ],
}


def with_arm(**fields: object) -> bytes:
    return msgspec.json.encode({**GOOD, "arms": [GOOD["arms"][0], {"name": "other", "share": 1, **fields}]})


def test_an_experiment_is_read() -> None:
    found = parse(msgspec.json.encode(GOOD))
    assert (found.name, found.salt) == ("home-mix", "home-mix")
    control, mixed, liked = found.arms
    assert (control.name, control.share, control.preset, control.objective, control.without) == (
        "control", 8.0, {}, None, (),
    )  # fmt: skip
    assert mixed.preset == {"diversity": 0.3, "n": 7}
    assert liked.objective is not None
    assert liked.objective.needs_heads
    assert liked.without == (*GROUPS["markov"], "bias")
    assert parse(msgspec.json.encode({**GOOD, "salt": "x"})).salt == "x"
    # Not how it is written: what it means.
    assert parse(msgspec.json.format(msgspec.json.encode(GOOD))).id == found.id


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "Input data was truncated"), (b"[]", "Expected `object`"), (b'{"name": "a"}', "arms"),
        (msgspec.json.encode({**GOOD, "arm": 1}), "arm"), (msgspec.json.encode({**GOOD, "name": "a b"}), r"\$.name"),
        (msgspec.json.encode({**GOOD, "salt": ""}), r"\$.salt"),
        (msgspec.json.encode({**GOOD, "arms": GOOD["arms"][:1]}), r"\$.arms"),
        (msgspec.json.encode({**GOOD, "arms": [GOOD["arms"][0]] * 2}), "control is there more than once"),
        (msgspec.json.encode({**GOOD, "arms": [{"name": f"a{n}", "share": 1} for n in range(11)]}), r"\$.arms"),
        (with_arm(share=0), r"\$.arms\[1\].share"), (with_arm(share="1"), r"\$.arms\[1\].share"),
        (with_arm(share=-1), r"\$.arms\[1\].share"), (with_arm(name="ä"), r"\$.arms\[...\].name|\$.arms\[1\].name"),
        (with_arm(preset=3), r"\$.arms\[1\].preset"), (with_arm(objectiv="x"), "objectiv"),
        (with_arm(preset={"user_id": "u"}), "arm other: preset: user_id cannot be preset"),
        (with_arm(preset={"diversity": 2}), "arm other: preset: .*diversity"),
        (with_arm(preset={"filter": "x =="}), "arm other: preset: filter"),
        (with_arm(objective="chioce=1"), "arm other: objective: 'chioce=1'"),
        (with_arm(without=["markow"]), "arm other: without: .*'markow'"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(text: bytes, says: str) -> None:
    with pytest.raises(BadExperiment, match=says):
        parse(text)


def test_a_worker_does_not_start_with_a_mistake_and_names_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "arms.json"
    for text, says in ((None, "No such file"), (with_arm(share=0), r"\$.arms\[1\].share")):
        if text is not None:
            file.write_bytes(text)
        with pytest.raises(SettingsError, match=f"HEADRACE_EXPERIMENT='{file}': .*{says}"):
            create_app(Settings(home=tmp_path, experiment=file), "127.0.0.1:1")


def test_the_request_comes_before_the_scenario_and_that_before_the_arm() -> None:
    experiment = parse(msgspec.json.encode(GOOD))
    scenarios = {"home": {"n": 20, "rotation": 0.5}}
    [user] = [user for user in (f"u{n}" for n in range(60)) if experiment.arm_of(user).name == "mixed"][:1]

    def asked(query: str) -> tuple[int, float, float]:
        found = from_query(make_mocked_request("GET", f"/v1/recommend?{query}"), scenarios, experiment)
        return found.n, found.diversity, found.rotation

    assert asked(f"user_id={user}") == (7, 0.3, 0.0)
    assert asked(f"user_id={user}&scenario=home") == (20, 0.3, 0.5)
    assert asked(f"user_id={user}&scenario=home&n=3&diversity=0") == (3, 0.0, 0.5)
    assert asked("n=5") == (5, 0.0, 0.0), "nobody is in an arm who has no account"
    in_path = from_query(make_mocked_request("GET", f"/v1/recommend/{user}"), scenarios, experiment, user_id=user)
    assert in_path.n == 7
    arm = experiment.arms[2]
    tuning = in_path.wish(arm).tuning
    assert (tuning.objective, tuning.without) == (arm.objective, arm.without)
    assert in_path.wish().tuning.objective is None
