"""Scoring what was shown: labels, areas, baselines, and that nothing of a row is known before it."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.impressions import (
    Areas,
    Exposed,
    ImpressionEvaluator,
    NoImpressions,
    auc,
    compare,
    impressions_of,
    tree_scores,
    user_areas,
    video_rates,
)
from cli.main import app
from ingestion.event_table import EventTable
from ingestion.simulate import Audience
from ingestion.source import read_event_table
from online_models.heads import HEADS, INPUTS
from state.exposures import WINDOW_MS
from topics.interactions import Interaction, encode

BEGIN = 1_600_000_000_000
QUIET: Callable[[str, int, int], None] = lambda _what, _done, _of: None  # noqa: E731 - a constant argument


def table(events: list[Interaction]) -> EventTable:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        path.write_bytes(b"".join(encode(each) + b"\n" for each in events))
        return read_event_table(path)


def event(
    number: int,
    user: str,
    video: str,
    kind: str,
    at_s: float,
    seconds: float | None = None,
    length: float | None = None,
) -> Interaction:
    return Interaction(f"e{number}", user, video, kind, BEGIN + int(1000 * at_s), seconds, length)  # type: ignore[arg-type]


def padded(events: list[Interaction]) -> EventTable:
    """A log with so many impressions of others that it may be evaluated."""
    others = [event(10_000 + n, f"other{n}", "elsewhere", "impression", 100_000 + n) for n in range(100)]
    return table([*events, *others])


def labels_of(events: list[Interaction]) -> dict[str, list[bool]]:
    made = padded(events)
    exposed = impressions_of(made, made.positive())
    mine = len(exposed.events) - 100
    return {name: label[:mine].tolist() for name, label in exposed.labels.items()}


def test_what_follows_an_impression_within_the_window_labels_it() -> None:
    found = labels_of(
        [
            event(1, "a", "x", "impression", 0),
            event(2, "a", "x", "watch", 1, 30.0, 60.0),
            event(3, "a", "y", "impression", 2),
            event(4, "a", "x", "like", 60),
            event(5, "b", "x", "impression", 61),
            event(6, "b", "x", "watch", 62, 8.0, 60.0),
            event(7, "b", "y", "like", 63),
            event(8, "a", "y", "like", 3 + WINDOW_MS / 1000),
        ]
    )
    assert found == {"long_view": [True, False, False], "like": [True, False, False], "click": [True, False, True]}


def test_of_two_impressions_of_a_video_the_latest_is_followed() -> None:
    found = labels_of(
        [
            event(1, "a", "x", "impression", 0),
            event(2, "a", "x", "impression", 10),
            event(3, "a", "x", "like", 20),
        ]
    )
    assert found["like"] == [False, True]


def test_a_duplicate_is_no_second_impression() -> None:
    first = event(1, "a", "x", "impression", 0)
    assert labels_of([first, event(2, "b", "y", "impression", 1), first])["like"] == [False, False]


def test_a_log_without_impressions_is_refused() -> None:
    made = table([event(1, "a", "x", "like", 0)])
    with pytest.raises(NoImpressions, match="0 impressions"):
        impressions_of(made, made.positive())


def test_area_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores, labels = rng.integers(0, 6, 40).astype(np.float64), rng.random(40) < 0.4
        pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
        assert auc(scores, labels) == pytest.approx(np.mean(pairs))
    assert np.isnan(auc(np.array([1.0, 2.0]), np.array([True, True])))


def test_weights_count_as_copies() -> None:
    rng = np.random.default_rng(2)
    scores, labels, copies = rng.normal(size=30), rng.random(30) < 0.5, rng.integers(0, 4, 30)
    repeated = auc(np.repeat(scores, copies), np.repeat(labels, copies))
    assert auc(scores, labels, copies.astype(np.float64)) == pytest.approx(repeated)


def test_users_with_one_outcome_have_no_area_of_their_own() -> None:
    users = np.array([5, 5, 5, 2, 2, 9])
    labels = np.array([True, False, False, True, True, False])
    who, areas, counts = user_areas(np.array([3.0, 1.0, 4.0, 1.0, 2.0, 0.0]), labels, users)
    assert who.tolist() == [5]
    assert areas.tolist() == [0.5]
    assert counts.tolist() == [3.0]


def test_an_arm_is_level_with_itself_and_errors_are_of_pairs() -> None:
    rng = np.random.default_rng(3)
    users = rng.integers(0, 50, 2_000)
    labels = rng.random(2_000) < 0.3
    good = labels + rng.normal(0.0, 1.0, 2_000)
    areas = Areas(labels, users)
    areas.add("one", good)
    areas.add("same", 2.0 * good)
    areas.add("noise", rng.normal(size=2_000))
    assert areas.difference("one", "same") == {"auc": 0.0, "auc_se": 0.0, "gauc": 0.0, "gauc_se": 0.0}
    worse = areas.difference("one", "noise")
    assert worse["auc"] > 5 * worse["auc_se"] > 0
    assert abs(areas.measured["noise"].auc - 0.5) < 4 * areas.measured["noise"].auc_se


def exposed(n: int, seed: int = 4) -> Exposed:
    """Impressions over ten days, liked by their third input."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(n, len(INPUTS))).astype(np.float32)
    label = rng.random(n) < 1.0 / (1.0 + np.exp(-2.0 * inputs[:, 2]))
    at_ms = np.sort(rng.integers(0, 10 * 86_400_000, n)) + BEGIN
    numbers = rng.integers(0, 30, (2, n))
    scores = np.repeat(inputs[:, 2:3], len(HEADS), axis=1)
    labels = dict.fromkeys(("long_view", "like", "click"), label)
    return Exposed(np.arange(n), numbers[0], numbers[1], at_ms, labels, inputs, scores, scores)


def test_video_rates_know_what_was_before_and_nothing_else() -> None:
    made = exposed(300)
    label = made.labels["like"]
    whole = video_rates(made, label, 100.0)
    changed = label.copy()
    changed[200:] = ~changed[200:]
    np.testing.assert_array_equal(video_rates(made, changed, 100.0)[:201], whole[:201])
    assert (video_rates(made, changed, 100.0)[201:] != whole[201:]).any()


def test_trees_learn_and_see_no_later_day() -> None:
    pytest.importorskip("lightgbm")
    made = exposed(3_000)
    scores, settings = tree_scores(made, "like", 1_500, QUIET)
    assert np.isnan(scores[: int(np.searchsorted((made.at_ms - made.at_ms[0]) // 86_400_000, 4))]).any()
    assert auc(scores[1_500:], made.labels["like"][1_500:]) > 0.75
    assert set(settings) == {"num_leaves", "rounds"}
    days = (made.at_ms - made.at_ms[0]) // 86_400_000
    last = days == days[-1]
    made.labels["like"] = np.where(last, ~made.labels["like"], made.labels["like"])
    again, _ = tree_scores(made, "like", 1_500, QUIET)
    np.testing.assert_array_equal(again[1_500:], scores[1_500:])


def test_compare_reports_each_label_with_its_arms() -> None:
    pytest.importorskip("lightgbm")
    found = compare(exposed(2_000), 0.5, True, QUIET)
    assert found["n"] == 1_000
    like = found["labels"]["like"]
    assert set(like["arms"]) == {"heads", "heads_video", "video_rate", "trees_daily"}
    assert like["arms"]["heads"]["auc"] > 0.8 > like["arms"]["video_rate"]["auc"]
    assert set(like["difference"]) == {"heads_video", "video_rate", "trees_daily"}
    assert like["difference"]["video_rate"]["auc"] > 0


def scored(made: EventTable, catalogue: Audience) -> Exposed:
    return ImpressionEvaluator(made, catalogue.videos(), made.positive(), warmup=0.0).score()


def test_the_future_and_the_row_itself_change_no_score() -> None:
    events = list(Audience(3, 60, 80).events(1_200))
    cut = 900
    while events[cut].event != "impression":
        cut += 1
    whole = scored(table(events), Audience(3, 60, 80))
    # What follows the impression at the cut, and all after it, is another's.
    cropped = scored(table(events[: cut + 1]), Audience(3, 60, 80))
    n = len(cropped.events)
    assert n > 300
    np.testing.assert_array_equal(whole.scores[:n], cropped.scores)
    np.testing.assert_array_equal(whole.inputs[:n], cropped.inputs)


def test_the_heads_learn_from_an_audience() -> None:
    audience = Audience(5, 150, 100)
    made = table(list(audience.events(9_000)))
    found = compare(scored(made, Audience(5, 150, 100)), 0.4, False, QUIET)
    for label in ("long_view", "like"):
        area = found["labels"][label]["arms"]["heads"]
        assert area["auc"] > 0.5 + 3 * area["auc_se"]
        assert 0.7 < found["labels"][label]["calibration"] < 1.4


def test_the_command_prints_json_and_refuses_what_has_no_meaning(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(encode(each) + b"\n" for each in Audience(5, 60, 60).events(1_500)))
    runner = CliRunner()
    done = runner.invoke(app, ["evaluate", "--events", str(path), "--impressions", "--json"])
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["labels"]) <= {"long_view", "like", "click"}
    refused = runner.invoke(app, ["evaluate", "--events", str(path), "--impressions", "--lag", "5"])
    assert refused.exit_code != 0
    ease = runner.invoke(app, ["evaluate", "--events", str(path), "--impressions", "--refit", "ease"])
    assert ease.exit_code != 0
