"""The frozen protocol, its record, and that a worse result does not pass."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import quality, recorded
from bench.logs import LOGS, Log, LogMissing, data_folder, first_of
from bench.quality import FULL, SMALL, TARGETS, Measured, Plan, measure_all
from bench.recorded import ERRORS, GUARDED, SHARE, Hits, NotComparable, Verdict, judge
from cli import refit
from cli.refit import AlsRefit, EaseRefit
from cli.study import Study
from ingestion.simulate import Audience
from state.types import BoolArray

TINY = Log("kuairand", "events.jsonl", "videos.jsonl", "default")
OTHER = Log("ml-latest-small", "other.jsonl", "videos.jsonl", "default")


def write(folder: Path, log: Log, seed: int, events: int) -> None:
    audience = Audience(seed, users=40, videos=60)
    rows = [
        {"user_id": e.user_id, "video_id": e.video_id, "event": e.event, "at_ms": e.at_ms}
        | ({"watch_seconds": e.watch_seconds, "duration_seconds": e.duration_seconds} if e.watch_seconds else {})
        for e in audience.events(events)
    ]
    (folder / log.events).write_text("".join(json.dumps(row) + "\n" for row in rows))
    videos = [{"video_id": video_id, "title": video.title} for video_id, video in audience.videos()]
    (folder / log.videos).write_text("".join(json.dumps(row) + "\n" for row in videos))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny logs in the place of the real ones, small grids, and a record of its own."""
    write(tmp_path, TINY, 1, 1_500)
    write(tmp_path, OTHER, 2, 1_200)
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path))
    monkeypatch.setattr(quality, "LOGS", {log.name: log for log in (TINY, OTHER)})
    monkeypatch.setattr(refit, "DECAYS", (1.0,))
    monkeypatch.setattr(EaseRefit, "fits", ({"lambda": 50.0},))
    monkeypatch.setattr(AlsRefit, "fits", ({"factors": 4.0, "regularisation": 1.0, "alpha": 10.0},))
    monkeypatch.setattr(recorded, "PATH", tmp_path / "recorded.json")
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    quality.main([*arguments, "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def silent(_log: str, _what: str, _done: int, _of: int) -> None:
    pass


@pytest.mark.usefixtures("folder")
def test_json_has_the_documented_shape(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = printed(capsys, "--seeds", "2", "--out", str(tmp_path / "out.json"))
    assert {"kuairand", "ml-latest-small", "n", "seconds", "commit", "machine", "load"} == set(found)
    assert found["n"] == 2
    for name in LOGS:
        log = found[name]
        names = {"served", *FULL.arms, "ease_refit", "als_refit"}
        assert names <= set(log)
        assert all(set(log[arm]) == {"recall@10", "ndcg@10", "se", "seed_sd"} for arm in names)
        assert set(log["served_ratio"]) == names - {"served"}
        assert all(set(ratio) == {"ratio", "se"} for ratio in log["served_ratio"].values())
        assert log["best_single"]["arm"] in quality.SINGLES
        assert log["best_single"]["ratio"] == log["served_ratio"][log["best_single"]["arm"]]["ratio"]
        assert log["cold"]["n"] + log["warm"]["n"] == log["n"] > 50
        assert log["cold"]["n"] > 0
        assert log["learn_us"] > 0 < log["rank_us"]
        assert set(log["targets"]) == {f"served/{arm}" for arm in TARGETS[name]}
        for target in log["targets"].values():
            assert target["reached"] == (target["ratio"] >= target["at_least"])
        assert log["targets"]["served/best_of_item_knn_mf"]["arm"] in ("item_knn", "mf")
    assert json.loads((tmp_path / "out.json").read_text())["kuairand"] == found["kuairand"]


def test_arms_that_draw_nothing_are_the_same_for_every_seed(folder: Path) -> None:
    read = TINY.read(folder)
    plan = Plan(FULL.arms, seeds=2)
    both = quality.run(read, plan, lambda _what, _done, _of: None)
    assert [set(run.positions.arms) for run in both.runs] == [{"served", *FULL.arms}] * 2
    alone = Study(*read, arms=FULL.arms, options=quality.OPTIONS)
    alone.run([2])
    assert alone.runs[0].positions == both.runs[1].positions, "what was taken from the first seed is the second's own"
    assert both.runs[0].positions.arms["mf"] != both.runs[1].positions.arms["mf"]


@pytest.mark.timeout(240)
def test_two_processes_find_what_one_finds(folder: Path) -> None:
    seen: set[tuple[str, str]] = set()
    logs = [TINY, OTHER]
    one = measure_all(logs, folder, SMALL, 1, silent)
    two = measure_all(logs, folder, SMALL, 2, lambda log, what, _done, _of: seen.add((log, what)))
    assert seen == {("kuairand", "seed 1"), ("ml-latest-small", "seed 1")}
    for name, found in one.items():
        assert found.hits.to_json() == two[name].hits.to_json()
        timed = ("learn_us", "rank_us")
        assert {k: v for k, v in found.figures.items() if k not in timed} == {
            k: v for k, v in two[name].figures.items() if k not in timed
        }


def test_missing_data_and_packages_end_with_a_way_out(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / TINY.videos).unlink()
    with pytest.raises(SystemExit) as ended:
        quality.main(["--set", "kuairand"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert TINY.videos in told
    assert "HEADRACE_DATA" in told
    with pytest.raises(LogMissing, match=r"videos\.jsonl"):
        TINY.read(folder)
    write(folder, TINY, 1, 300)
    monkeypatch.setattr(quality, "find_spec", lambda name: None if name == "implicit" else name)
    with pytest.raises(SystemExit) as ended:
        quality.main(["--set", "kuairand"])
    assert ended.value.code == 2
    assert "pip install implicit" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--check"], ["--record"], ["--subsample", "--check", "--record"], ["--seeds", "0"]]
)
def test_options_that_mean_nothing_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        quality.main(arguments)
    assert ended.value.code == 2
    assert "--" in capsys.readouterr().err


def lowered(measured: Measured, arm: str, by: int) -> Measured:
    """The same with fewer hits of an arm."""
    hits = measured.hits.arms[arm].copy()
    hits[np.flatnonzero(hits)[:by]] = False
    return measured._replace(hits=measured.hits._replace(arms={**measured.hits.arms, arm: hits}))


def test_the_check_passes_what_is_equal_and_names_what_is_lower(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        quality.main(["--set", "kuairand", "--subsample", "--check"])
    assert ended.value.code == 1, "a check with nothing recorded passes nothing"
    assert "--record" in capsys.readouterr().err
    monkeypatch.setattr(quality, "SMALL", SMALL._replace(share=1.0))
    printed(capsys, "--subsample", "--record")
    assert set(json.loads((folder / "recorded.json").read_text())) == {"kuairand", "ml-latest-small"}
    found = printed(capsys, "--subsample", "--check")
    assert found["check"]["passed"]
    assert all(figure["passed"] for figure in found["check"]["kuairand"].values())
    real = quality.measure_all

    def worse(*arguments: Any) -> dict[str, Measured]:
        made = real(*arguments)
        return {**made, "kuairand": lowered(made["kuairand"], "served", 15)}

    monkeypatch.setattr(quality, "measure_all", worse)
    with pytest.raises(SystemExit) as ended:
        printed(capsys, "--subsample", "--check")
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["check"]["passed"] is False
    assert "kuairand: recall@10 of served is" in told.err
    assert "lower than the recorded" in told.err
    assert "ml-latest-small:" not in told.err


def hits(served: BoolArray, other: BoolArray, mf: BoolArray | None = None) -> Hits:
    models = {"item_knn": other, "mf": other if mf is None else mf}
    return Hits("a", {"served": served, "popularity_decayed": other, **models})


def some(n: int, share: float, seed: int) -> BoolArray:
    drawn: BoolArray = np.random.default_rng(seed).random(n) < share
    return drawn


def test_errors_are_of_pairs() -> None:
    a, b = some(5_000, 0.1, 1), some(5_000, 0.08, 2)
    lower = a.copy()
    lower[np.flatnonzero(a)[:40]] = False
    recall, ratio, *models = judge(hits(lower, b), hits(a, b))
    assert recall.now == pytest.approx(a.mean() - 40 / 5_000)
    # 40 ones among 5,000: their share's own standard error, far below that of two independent recalls (.006).
    assert recall.se == pytest.approx(np.sqrt(0.008 * 0.992 / 5_000))
    assert ratio.now / ratio.recorded == pytest.approx(recall.now / recall.recorded)
    assert ratio.se == pytest.approx(recall.se / b.mean(), rel=0.05)
    assert not recall.passed
    assert not ratio.passed
    assert all(verdict.passed for verdict in models)


def test_a_model_that_breaks_behind_the_ranker_is_seen_and_one_that_gives_a_little_is_not() -> None:
    a, b = some(5_000, 0.1, 1), some(5_000, 0.08, 2)
    little, much = b.copy(), b.copy()
    little[np.flatnonzero(b)[: int(0.19 * b.sum())]] = False
    much[np.flatnonzero(b)[: int(0.25 * b.sum())]] = False
    assert all(verdict.passed for verdict in judge(hits(a, b, little), hits(a, b)))
    assert [verdict.figure for verdict in judge(hits(a, b, much), hits(a, b)) if not verdict.passed] == [
        "recall@10 of mf"
    ]


def test_a_ratio_falls_too_where_the_other_arm_rises() -> None:
    a, b = some(5_000, 0.1, 1), some(5_000, 0.08, 2)
    recall, ratio, *_ = judge(hits(a, b | some(5_000, 0.03, 3)), hits(a, b))
    assert recall.passed
    assert not ratio.passed


@pytest.mark.parametrize(
    ("now", "se", "passed"),
    [
        (0.100, 0.0, True),
        (0.130, 0.0, True),
        (0.0971, 0.0, True),
        (0.0969, 0.0, False),
        (0.0969, 0.001, False),
        (0.0961, 0.002, True),
        (0.0959, 0.002, False),
        (float("nan"), 0.0, False),
    ],
)
def test_the_larger_of_both_bounds_holds(now: float, se: float, passed: bool) -> None:
    verdict = Verdict("recall", now, 0.1, se)
    assert verdict.allowed == pytest.approx(max(ERRORS * se, SHARE * 0.1))
    assert verdict.passed is passed
    assert Verdict("recall", 0.0810, 0.1, 0.0, 0.2).passed > Verdict("recall", 0.0790, 0.1, 0.0, 0.2).passed


def test_a_record_comes_back_as_it_was_and_keeps_other_logs(tmp_path: Path) -> None:
    made = hits(some(1_003, 0.1, 1), some(1_003, 0.1, 2))
    recorded.save({"one": made.to_json()}, tmp_path / "r.json")
    recorded.save({"two": {"n": 1}}, tmp_path / "r.json")
    saved = recorded.load(tmp_path / "r.json")
    assert set(saved) == {"one", "two"}
    back = Hits.from_json(saved["one"])
    assert all((back.arms[arm] == made.arms[arm]).all() for arm in GUARDED)
    assert all(verdict.passed and verdict.se == 0 for verdict in judge(made, back))


def test_other_targets_are_no_result() -> None:
    a, b = some(500, 0.1, 1), some(500, 0.1, 2)
    with pytest.raises(NotComparable, match="targets"):
        judge(Hits("b", hits(a, b).arms), hits(a, b))
    with pytest.raises(NotComparable, match="targets"):
        judge(hits(a[:-1], b[:-1]), hits(a, b))
    with pytest.raises(NotComparable, match="popularity_decayed"):
        judge(hits(a, np.zeros(500, np.bool_)), hits(a, b))


def test_a_part_of_a_log_ends_between_two_rows(folder: Path) -> None:
    table = TINY.read(folder).table
    part = first_of(table, 0.3)
    assert 0.29 * len(table) < len(part) <= 0.3 * len(table)
    assert part.at_ms[-1] < table.at_ms[len(part)]
    assert list(part.interactions()) == list(table.interactions(0, len(part)))
    assert len(first_of(table, 0.0)) == 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(LOGS))
def test_served_is_not_worse_than_what_is_recorded(name: str) -> None:
    log = LOGS[name]
    if why := log.missing(data_folder()):
        pytest.skip(why)
    _, failed = quality.check(measure_all([log], data_folder(), SMALL, 1, silent))
    assert not failed, "\n".join(failed)
