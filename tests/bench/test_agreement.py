import json
from pathlib import Path
from typing import Any

import pytest

from bench import agreement
from bench.agreement import ratios
from ingestion.simulate import Audience


def test_ratios_have_the_errors_of_two_samples() -> None:
    a = {"n": 1_000, "recall": dict.fromkeys(agreement.ARMS, 0.1), "ndcg": dict.fromkeys(agreement.ARMS, 0.05)}
    b = {"n": 4_000, "recall": dict.fromkeys(agreement.ARMS, 0.2), "ndcg": dict.fromkeys(agreement.ARMS, 0.05)}
    found = ratios(a, b)["served"]
    assert (found["recall"], found["ndcg"]) == (0.5, 1.0)
    assert found["se"] == pytest.approx(0.5 * (0.9 / 100 + 0.8 / 800) ** 0.5, abs=1e-4)


def test_an_arm_without_hits_has_no_ratio() -> None:
    none = {"n": 10, "recall": dict.fromkeys(agreement.ARMS, 0.0), "ndcg": dict.fromkeys(agreement.ARMS, 0.0)}
    assert ratios(none, none)["mf"]["recall"] != ratios(none, none)["mf"]["recall"]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(agreement, "FOLDER", tmp_path / "agreement")
    audience = Audience(1, 300, 300)
    events, videos = tmp_path / "events.jsonl", tmp_path / "videos.jsonl"
    rows: list[dict[str, Any]] = []
    for e in audience.events(5_000):
        rows.append({"user_id": e.user_id, "video_id": e.video_id, "event": e.event, "at_ms": e.at_ms})
        if e.watch_seconds is not None:
            rows[-1] |= {"watch_seconds": e.watch_seconds, "duration_seconds": e.duration_seconds}
    events.write_text("".join(json.dumps(row) + "\n" for row in rows))
    catalogue = [
        {"video_id": video_id, "title": video.title, "categories": video.categories, "published_ms": video.published_ms}
        for video_id, video in audience.videos()
    ]
    videos.write_text("".join(json.dumps(row) + "\n" for row in catalogue))
    return events, videos


@pytest.mark.broker
@pytest.mark.timeout(240)
def test_a_worker_and_the_evaluator_rank_the_same_positives_alike(
    log: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    events, videos = map(str, log)
    # Few events wait: on a log as short as this one, a user's own latest events decide.
    agreement.main(["--events", events, "--videos", videos, "--warmup", "0.2", "--most-waiting", "60", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    worker, evaluated, compared = found["worker"], found["evaluate"], found["ratios"]
    assert worker["n"] == evaluated["n"] > 700
    assert worker["failed"] == 0
    assert 0 < worker["lag_events"]["own"] <= 60
    for arm in agreement.ARMS:
        # Of so few positives the error of a ratio is a tenth.
        assert abs(compared[arm]["recall"] - 1.0) < 3 * compared[arm]["se"] + 0.03, (arm, found)
    assert found["agree"] == (abs(compared["served"]["recall"] - 1.0) <= agreement.AIM)
