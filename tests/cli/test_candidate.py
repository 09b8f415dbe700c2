"""Files of candidates: what they change, what they leave, and how a mistake is told."""

import json
from pathlib import Path

import pytest

from cli.candidate import KEYS, live_configuration, read_candidate
from cli.replay import BadCandidate
from infra.settings import Settings
from online_models.ranker import features_of
from state.objective import Objective
from topics.signals import SignalTable

EXPERIMENT = {
    "name": "e",
    "arms": [
        {"name": "control", "share": 1, "preset": {"diversity": 0.2}},
        {
            "name": "mixed",
            "share": 1,
            "preset": {"diversity": 0.6, "n": 30},
            "objective": "like=1",
            "without": ["markov"],
        },
    ],
}


def written(folder: Path, text: str, name: str = "candidate.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def experiment(tmp_path: Path) -> Settings:
    return Settings(experiment=written(tmp_path, json.dumps(EXPERIMENT), "experiment.json"), partitions=3)


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n"])
def test_a_file_that_says_nothing_is_the_live_configuration(tmp_path: Path, text: str) -> None:
    settings = Settings(objective="choice=1,like=0.5", max_users=77)
    found, live = read_candidate(written(tmp_path, text), settings), live_configuration(settings)
    assert found == live
    assert live.options.max_users == 77
    assert live.options.objective == Objective.parse("choice=1,like=0.5")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "exploration: 0.5\nobjective: like=1\nwithout: [markov]\npreset: {diversity: 0.3}\n"),
        ("c.json", '{"exploration": 0.5, "objective": "like=1", "without": ["markov"], "preset": {"diversity": 0.3}}'),
        ("c.toml", 'exploration = 0.5\nobjective = "like=1"\nwithout = ["markov"]\npreset = {diversity = 0.3}\n'),
    ],
)
def test_each_format_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    settings = Settings(max_users=77, partitions=3)
    found = read_candidate(written(tmp_path, text, name), settings)
    assert found.options.exploration == 0.5
    assert found.options.objective == Objective.parse("like=1")
    assert (found.options.max_users, found.options.partitions) == (77, 3)
    assert found.wish.n == 10
    assert found.wish.tuning.diversity == 0.3
    assert found.wish.tuning.without == features_of(["markov"])
    assert found.changed["exploration"] == 0.5


def test_signals_are_a_table_or_the_name_of_a_file(tmp_path: Path) -> None:
    table = {"long_watch_seconds": 5, "events": {"share": {"target": 1, "weight": 9}}}
    file = written(tmp_path, json.dumps(table), "signals.json")
    wanted = SignalTable.parse(json.dumps(table))
    for text in (json.dumps({"signals": table}), f"signals: {file}"):
        options = read_candidate(written(tmp_path, text), Settings()).options
        assert options.signals.table == wanted.table
        assert options.signals.long_watch_s == 5


def test_lists_start_from_the_control_or_from_the_arm_that_is_named(tmp_path: Path, experiment: Settings) -> None:
    live = live_configuration(experiment)
    assert live.wish.tuning.diversity == 0.2
    # The tally follows real lists; there are none.
    assert live.options.experiment is None
    assert read_candidate(written(tmp_path, "exploration: 0"), experiment).wish == live.wish
    mixed = read_candidate(written(tmp_path, "arm: mixed"), experiment)
    assert (mixed.wish.n, mixed.wish.tuning.diversity) == (10, 0.6)
    assert mixed.wish.tuning.objective == Objective.parse("like=1")
    assert mixed.wish.tuning.without == features_of(["markov"])
    both = read_candidate(written(tmp_path, "arm: mixed\nobjective: choice=1\nwithout: []\n"), experiment)
    assert both.wish.tuning.objective is None
    assert both.options.objective == Objective.parse("choice=1")
    assert both.wish.tuning.without == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exploraton: 0.1", "exploraton is not known, did you mean exploration?"),
        ("HEADRACE_OBJECTIVE: like=1", "did you mean objective?"),
        ("partitions: 8", "partitions is a setting that no candidate can change"),
        ("api_key: x", "api_key is a setting that no candidate can change"),
        ("exploration: 3", "HEADRACE_EXPLORATION=3"),
        ("exploration: [1]", "exploration: expected what HEADRACE_EXPLORATION takes"),
        ("exploration:", "exploration: expected"),
        ("objective: loved=1", "loved=1"),
        ("signals: {events: {shared: {target: 1, weight: 1}}}", "there is no event shared"),
        ("signals: nowhere.json", "nowhere.json"),
        ("preset: {colour: red}", "preset: colour cannot be preset"),
        ("preset: {diversity: 7}", "preset: "),
        ("preset: {n: 5}", "lists of 10 are compared"),
        ("without: [taste]", "there is no part 'taste'"),
        ("without: markov", "without: expected a list"),
        ("arm: mixed", "HEADRACE_EXPERIMENT has no arm 'mixed': there is no experiment"),
        ("- exploration", "expected keys with values"),
        ("exploration: 1: 2", "cannot be read"),
        ("exploration: !!python/object/apply:os.getpid []", "cannot be read"),
    ],
)
def test_a_mistake_is_told_with_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadCandidate) as caught:
        read_candidate(path, Settings())
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_what_is_not_known_is_told_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(BadCandidate) as caught:
        read_candidate(written(tmp_path, "colour: red"), Settings())
    assert all(key in str(caught.value) for key in KEYS)
    with pytest.raises(BadCandidate, match="No such file"):
        read_candidate(tmp_path / "none.yaml", Settings())
