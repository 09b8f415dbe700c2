import json
import os
import sys
from pathlib import Path

import pytest

from bench import full_learning, ingest, workload
from bench.contender import Contender, ContenderFailed, Run, on_core
from bench.peers.peer import PEERS
from bench.rates import Sample, TooShort, ratios, steady_rate


def test_a_rate_begins_after_a_third_of_the_events() -> None:
    # 10 s for the first 300, then 100 a second: the slow start must not count.
    samples = [Sample(0.0, 1), Sample(5.0, 299), Sample(10.0, 300), Sample(13.0, 600), Sample(16.0, 900)]
    assert steady_rate(samples, 900, limit_s=60.0) == pytest.approx(100.0)


def test_a_slow_one_is_measured_after_a_third_of_its_time() -> None:
    samples = [Sample(100.0 + t, 1 + (t if t <= 10 else 10 + 5 * (t - 10))) for t in range(31)]
    assert steady_rate(samples, 1_000_000, limit_s=30.0) == pytest.approx(5.0)


def test_the_wait_for_the_evidence_counts() -> None:
    learned = [Sample(0.0, 100), Sample(1.0, 200), Sample(2.0, 300)]
    assert steady_rate(learned, 300, 30.0) == pytest.approx(100.0)
    assert steady_rate([*learned, Sample(4.0, 300)], 300, 30.0) == pytest.approx(50.0)


@pytest.mark.parametrize(
    "samples",
    [[], [Sample(0.0, 300)], [Sample(0.0, 1), Sample(1.0, 50)], [Sample(0.0, 300), Sample(1.0, 300)]],
)
def test_no_steady_part_is_an_error_and_no_rate(samples: list[Sample]) -> None:
    with pytest.raises(TooShort):
        steady_rate(samples, 300, 30.0)


def test_ratios_are_of_medians_and_only_of_what_was_measured() -> None:
    rates = {"ours": [10.0, 30.0, 20.0], "slow": [2.0, 4.0, 100.0], "fast": [40.0]}
    assert ratios(rates, "ours", ("slow", "fast", "absent")) == {"slow": 5.0, "fast": 0.5}
    assert ratios({"slow": [1.0]}, "ours", ("slow",)) == {}


def test_counts_are_read_as_each_peer_writes_them() -> None:
    assert PEERS["stock_faust"].count(b"7") == 7
    assert PEERS["kafka_streams"].count((7).to_bytes(8, "big")) == 7


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("nowhere:1", "test", tmp_path, events=1_200, core=0, limit_s=30.0, stall_s=2.0)


def started(run: Run, program: str) -> Contender:
    return Contender(run, [sys.executable, "-c", program], {"PYTHONPATH": str(Path.cwd())})


def test_a_contender_tells_its_progress_its_end_and_runs_on_its_core(run: Run) -> None:
    program = (
        "import os, signal\nfrom bench.peers.progress import Progress\n"
        "p = Progress(1200)\nfor _ in range(1200): p.add()\n"
        "print('cores', *os.sched_getaffinity(0), flush=True)\nsignal.sigwait({signal.SIGTERM}); p.stopped()"
    ).replace("p = ", "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); p = ")
    with started(run, program) as contender:
        samples = contender.await_samples()
        assert [sample.done for sample in samples] == [1, 501, 1001, 1200]
        assert contender.stop() == 1200
        assert "cores 0\n" in contender.log_file.read_text()


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit(3)", "ended with status 3"),
        ("import time; print('progress 1.0 5', flush=True); time.sleep(60)", "no progress for 2 s, at 5 of 1200"),
    ],
)
def test_a_contender_that_fails_says_how(run: Run, program: str, why: str) -> None:
    with started(run, program) as contender, pytest.raises(ContenderFailed, match=why):
        contender.await_samples()


def test_one_core_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    with on_core(0):
        assert os.sched_getaffinity(0) == {0}
    assert os.sched_getaffinity(0) == before


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "FOLDER", tmp_path / "ingest")
    monkeypatch.setattr(workload, "USERS", 500)
    monkeypatch.setattr(workload, "VIDEOS", 200)
    # A short log is learned between two looks at the usual pace.
    monkeypatch.setattr(full_learning, "ASK_EVERY_S", 0.01)


@pytest.mark.broker
@pytest.mark.usefixtures("scratch")
def test_a_worker_and_a_decoder_are_measured_on_one_log(capsys: pytest.CaptureFixture[str]) -> None:
    ingest.main(["--events", "6000", "--runs", "1", "--only", "raw_decode,full_learning", "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    rates = found["events_per_s"]
    assert rates["raw_decode"] > rates["full_learning"] > 0
    assert found["ratios"] == {"raw_decode": pytest.approx(rates["full_learning"] / rates["raw_decode"], abs=0.01)}
    assert 0.1 < found["positives_share"] < 0.5
    assert (found["events"], found["n"]) == (6000, 1)
