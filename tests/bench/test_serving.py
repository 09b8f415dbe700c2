import asyncio
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from bench import probing, serving, warm_worker, wrk
from bench.rates import Sample, TooShort
from bench.serving import combined, is_whole, middle_rate, taken_by_others, targets, without_id
from bench.wrk import Load, WrkFailed, quantiles_ms, read_report, uncorrected
from ingestion.simulate import Audience
from tests.bench.servers import Server
from topics.interactions import Interaction, decode_value, encode

with_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk: apt-get install wrk")


def corrected(measured: dict[int, int], interval: int) -> dict[int, int]:
    """What wrk 4.1 makes of latencies: its `stats_correct`, line by line."""
    made = Counter(measured)
    for value in range(interval * 2, max(measured) + 1):
        added = value - interval
        while made[value] and added > interval:
            made[added] += made[value]
            added -= interval
    return {value: count for value, count in made.items() if count}


def test_what_wrk_adds_is_taken_back() -> None:
    draw = random.Random(1)
    for interval in (1, 7, 40, 1_000):
        measured = Counter(int(draw.lognormvariate(3.5, 1.0)) + 1 for _ in range(500))
        made = sorted(corrected(measured, interval).items())
        values, counts = np.array(made, np.int64).T
        if interval < 100:
            assert counts.sum() > 500, "some were late"
        undone = uncorrected(values, counts, interval)
        assert {v: c for v, c in zip(values.tolist(), undone.tolist(), strict=True) if c} == measured


def test_quantiles_are_in_ms_and_weighted() -> None:
    found = quantiles_ms(np.array([1_000, 2_000, 9_000], np.int64), np.array([60, 38, 2], np.int64))
    assert found == {"p50": 1.0, "p95": 2.0, "p99": 9.0}


def report(**changed: Any) -> dict[str, Any]:
    errors = {"connect": 0, "read": 1, "write": 0, "status": 4, "timeout": 0}
    return {"requests": 100, "duration_us": 250_000, "errors": errors, "counts": {"owner": 95}} | changed


def test_a_report_is_read() -> None:
    found = read_report(report(latencies=[[1_000, 96], [3_000, 3], [4_000, 1]]), 2)
    assert (found.requests, found.seconds, found.errors, found.counts["owner"]) == (100, 0.25, 5, 95)
    assert found.per_s == 400
    assert found.latency_ms == found.answered_ms == {"p50": 1.0, "p95": 1.0, "p99": 3.0}, (
        "one every 5 ms: none was late"
    )
    # One every millisecond: that of 4 ms stands for one of 3 and one of 2 beside it.
    late = [[900, 97], [2_000, 3], [3_000, 1], [4_000, 1]]
    found = read_report(report(latencies=late, duration_us=100_000), 1)
    assert (found.latency_ms["p99"], found.answered_ms["p99"]) == (3.0, 2.0)


def test_no_answer_is_an_error() -> None:
    with pytest.raises(WrkFailed, match="no answer at all"):
        read_report(report(requests=0, latencies=[]), 8)


def test_runs_are_combined_by_their_medians_and_errors_by_their_sum() -> None:
    runs = [{"requests_per_s": r, "p99_ms": p, "errors": 2} for r, p in ((900.0, 8.0), (100.0, 30.0), (1_000.0, 9.0))]
    found = combined(runs)
    assert (found["requests_per_s"], found["p99_ms"], found["errors"]) == (900.0, 9.0, 6)
    assert found["spread"]["p99_ms"] == {"median": 9.0, "min": 8.0, "max": 30.0, "runs": [8.0, 30.0, 9.0]}


def test_a_backlogs_rate_is_that_of_its_middle() -> None:
    # It takes a second to begin and one to end: in between there are 100 a second.
    samples = [
        Sample(t, done)
        for t, done in ((0.0, 5_000), (1.0, 5_020), (3.0, 5_220), (8.0, 5_720), (9.0, 5_730), (10.5, 5_800))
    ]
    assert middle_rate(samples, 5_000, 5_800) == pytest.approx(100.0)
    with pytest.raises(TooShort):
        middle_rate([Sample(0.0, 5_000), Sample(1.0, 5_400), Sample(2.0, 5_800)], 5_000, 5_800)


def found(videos: int, **changed: float) -> dict[str, Any]:
    level = {"requests_per_s": 650.0, "p99_ms": 25.0, "sent_per_s": 5_000.0, "learned_per_s": 3_400.0}
    return {
        "videos": videos,
        "idle": {"c8": level | {"requests_per_s": 1_000.0}},
        "learning_5000": {"c1": {}, "c8": level | changed},
        "backlog": {"kept": 0.7},
        "freshness": {"p99_ms": 301.0},
        "post": {"events_per_s": 20_000},
    }


def reached(videos: int, **changed: float) -> dict[str, bool]:
    return {name: target["reached"] for name, target in targets(found(videos, **changed)).items()}


def test_targets_are_of_eight_connections_and_of_the_size_of_the_catalogue() -> None:
    assert reached(6_000) == {
        "learning_p99_ms": False,
        "learning_requests_per_s": True,
        "idle_requests_per_s": True,
        "learned_share": False,
        "backlog_kept": True,
        "fresh_p99_ms": False,
        "post_events_per_s": True,
    }
    assert reached(6_000, p99_ms=20.0, requests_per_s=599.0)["learning_p99_ms"]
    assert not reached(6_000, requests_per_s=599.0)["learning_requests_per_s"]
    assert reached(100_000, learned_per_s=3_500.0) == {
        "learning_p99_ms": True,
        "learned_share": True,
        "backlog_kept": True,
        "fresh_p99_ms": False,
        "post_events_per_s": True,
    }


def test_what_others_took_is_what_the_worker_did_not_take_of_its_core() -> None:
    def levels(*cpu: float) -> dict[str, Any]:
        return {f"c{n}": {"worker_core_busy": 0.9, "worker_cpu": each} for n, each in enumerate(cpu)}

    assert taken_by_others({"idle": levels(0.9, 0.7), "learning_5000": levels(0.5, 0.9)}) == pytest.approx(0.15)
    assert taken_by_others({"idle": levels(0.91), "learning_5000": levels(0.9)}) == 0.0, "clocks are not that exact"


def test_a_post_is_whole_where_nothing_acknowledged_is_lost_and_nothing_logged_is_not_learned() -> None:
    whole = {"acknowledged": 900, "records": 1_000, "learned": 1_000}
    assert is_whole(whole)
    assert not is_whole(whole | {"acknowledged": 1_100})
    assert not is_whole(whole | {"learned": 999})
    assert not is_whole(whole | {"learned": 1_001})


def test_an_event_gets_another_id_and_is_else_the_same() -> None:
    for event in Audience(seed=3, users=20, videos=50).events(300):
        given = b'{"event_id":"mine",' + without_id(encode(event))
        assert decode_value(given) == Interaction(
            "mine", *[getattr(event, name) for name in Interaction.__struct_fields__[1:]]
        )
    with pytest.raises(ValueError, match="does not begin with its id"):
        without_id(b'{"user_id":"u","event_id":"e"}')


def test_without_wrk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt-get install wrk"):
        serving.main([])


@with_wrk
async def test_lists_are_asked_for_and_counted_by_source(server: Server, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()
    sources = {"/u1": "owner", "/u2": "owner", "/u3": "trending", "/u4": "mistaken"}

    async def answer(request: web.Request) -> web.Response:
        asked[request.path_qs] += 1
        if request.path == "/u5":
            return web.json_response({"source": "owner"}, status=503)
        body = {"user_id": "u", "source": sources[request.path], "items": [{"title": '"source":"replica"'}]}
        return web.Response(body=json.dumps(body, separators=(",", ":")).encode())

    paths = tmp_path / "paths"
    paths.write_text("".join(f"/u{number}?n=10\n" for number in range(1, 6)))
    url = await server(answer)
    found = await asyncio.to_thread(wrk.run, url, Load("wrk_lists.lua", (str(paths), "7")), 4, 1)
    assert set(asked) == {f"/u{number}?n=10" for number in range(1, 6)}
    assert min(asked.values()) > 0.1 * found.requests, "random ones, each as likely as any other"
    # What was under way at the end is asked and not counted.
    assert 0 <= asked["/u1?n=10"] + asked["/u2?n=10"] - found.counts["owner"] <= 4
    assert 0 <= asked["/u3?n=10"] - found.counts["trending"] <= 4
    assert 0 <= asked["/u4?n=10"] - found.counts["other"] <= 4
    assert 0 <= asked["/u5?n=10"] - found.errors <= 4
    assert found.counts["replica"] == found.counts["session"] == 0
    assert found.requests == sum(found.counts.values()) + found.errors
    assert 0 < found.answered_ms["p50"] <= found.answered_ms["p99"] <= found.latency_ms["p99"] + 0.001


@with_wrk
async def test_events_are_posted_in_batches_each_with_an_id_of_its_own(server: Server, tmp_path: Path) -> None:
    bodies: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        assert (request.method, request.path, request.content_type) == ("POST", "/v1/events", "application/json")
        if len(bodies) % 5 == 0:
            return web.json_response({"detail": "come again"}, status=503)
        return web.Response(status=202, body=b'{"accepted":98,"rejected":[{},{}],"offsets":{}}')

    events = list(Audience(seed=3, users=20, videos=50).events(150))
    file = tmp_path / "events"
    file.write_bytes(b"".join(without_id(encode(event)) for event in events))
    url = await server(answer)
    found = await asyncio.to_thread(wrk.run, f"{url}/v1/events", Load("wrk_events.lua", (str(file), "mine")), 2, 1)
    posted = [[decode_value(json.dumps(event).encode()) for event in json.loads(body)] for body in bodies[:40]]
    assert {len(batch) for batch in posted} == {100}
    ids = [event["event_id"] for body in bodies for event in json.loads(body)]
    assert len(set(ids)) == len(ids) == 100 * len(bodies)
    assert all(each.startswith("mine-") for each in ids)
    assert {event.user_id for batch in posted for event in batch} == {event.user_id for event in events}
    assert found.counts == {
        "accepted": 98 * found.counts["batches"],
        "batches": found.requests - found.errors,
        "refused": 2 * found.counts["batches"],
    }
    assert 0 <= len(bodies) - found.requests <= 2
    assert found.errors == pytest.approx(len(bodies) / 5, abs=2)


@with_wrk
async def test_a_run_that_is_stopped_reports(server: Server, tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b'{"source":"owner"}')

    (tmp_path / "paths").write_text("/u1\n")
    url = await server(answer)
    with wrk.Wrk(url, Load("wrk_lists.lua", (str(tmp_path / "paths"), "1")), 2, 60) as running:
        await asyncio.sleep(0.5)
        found = await asyncio.to_thread(running.stop)
    assert 0.3 < found.seconds < 10
    assert found.counts["owner"] == found.requests > 0


@with_wrk
def test_a_script_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WrkFailed, match="no report"):
        wrk.run("http://127.0.0.1:9", Load("wrk_lists.lua", (str(tmp_path / "absent"), "1")), 1, 1)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "FOLDER", tmp_path / "serving")
    monkeypatch.setattr(warm_worker, "USERS", 300)
    # A short log is learned between two looks at the usual pace.
    monkeypatch.setattr(serving, "LOOK_S", 0.002)
    monkeypatch.setattr(warm_worker, "STILL_S", 0.1)
    for module, name in ((serving, "SETTLE_S"), (probing, "BEFORE_S"), (serving, "SPARE_S")):
        monkeypatch.setattr(module, name, 0.5)
    monkeypatch.setattr(serving, "AFTER_S", 1.5)
    # What is sent has to be learned before the next level begins.
    monkeypatch.setattr(serving, "LEARNING", 2_000)


@with_wrk
@pytest.mark.broker
@pytest.mark.usefixtures("scratch")
def test_a_worker_is_asked_while_it_learns(capsys: pytest.CaptureFixture[str]) -> None:
    serving.main(
        ["--videos", "200", "--seconds", "1", "--runs", "1", "--warm-up", "4000", "--backlog", "10000", "--json"]
    )
    (line,) = capsys.readouterr().out.splitlines()
    whole = json.loads(line)
    (found,) = whole["catalogues"]
    assert (whole["n"], found["videos"], found["users_asked"]) == (1, 200, pytest.approx(150, abs=100))
    for load in ("idle", "learning_2000"):
        assert set(found[load]) == {"c1", "c8", "c32"}
        for level in found[load].values():
            assert level["errors"] == 0
            assert level["owner_share"] > 0.5
            assert 0 < level["p50_ms"] <= level["p95_ms"] <= level["p99_ms"]
            assert level["requests_per_s"] > 1
    assert 0 <= found["taken_by_others"] <= 1
    assert found["idle"]["c8"]["sent_per_s"] == found["idle"]["c8"]["learned_per_s"] == 0
    assert found["learning_2000"]["c8"]["sent_per_s"] > 1_000
    assert found["learning_2000"]["c8"]["learned_per_s"] > 0
    assert min(found["backlog"][name] for name in ("kept", "requests_per_s")) > 0
    assert found["freshness"]["n"] > 0
    post = found["post"]
    assert 0 < post["acknowledged"] <= post["records"] == post["learned"]
    assert post["acknowledged"] % 100 == post["refused"] == post["errors"] == 0
    assert set(found["targets"]) >= {"learning_p99_ms", "backlog_kept", "post_events_per_s"}
