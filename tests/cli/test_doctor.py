"""`headrace doctor`: all is well beside a worker that runs; everything that fails is made to fail."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli import doctor_machine
from cli.doctor_kafka import KafkaChecks
from cli.findings import Finding, Level, findings_of, ok
from cli.worker_process import worker_environment
from infra.kafka_probe import free_port
from infra.settings import PREFIX, Settings
from ingestion.produce import produce_events
from state.rows import CUT_KEY
from state.store import RocksStore
from tests.agents.running_worker import HOST, RunningWorker
from tests.api.redis_server import RedisServer
from tests.small_disk import SmallDisk
from topics.interactions import Interaction
from topics.specs import TopicSpec, ensure_topics, evidence_topic, specs

READY_TIMEOUT_S = 90.0
#: Label values of a metric; more would be a user's or a video's.
MOST_SERIES = 100
UNITS = {"Time ": "_seconds", "CPU time": "_seconds", "Age ": "_seconds", "Size ": "_bytes", "Free space": "_bytes"}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def run_doctor(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)


def levels(found: Iterable[Finding]) -> dict[str, Level]:
    return {finding.check: finding.level for finding in found}


def only(found: Iterable[Finding]) -> Finding:
    [finding] = found
    return finding


@pytest.mark.broker
def test_a_worker_that_runs_is_well_and_its_metrics_are_in_order(bootstrap: str, tmp_path: Path) -> None:
    metrics_port = free_port(HOST)
    app = "doctor-test"
    with RunningWorker(bootstrap, tmp_path, app, metrics_port=metrics_port) as worker:
        worker.wait(lambda _: "worker ready" in worker.log, READY_TIMEOUT_S)
        produce_events(bootstrap, [Interaction("d1", "doc", "v-doc", "like", int(time.time() * 1000) - 1000)])
        with urllib.request.urlopen(f"http://{HOST}:{worker.port}/v1/recommend/doc?n=1", timeout=5) as answer:
            assert answer.status == 200
        environment = worker_environment(bootstrap, tmp_path, worker.port, {"app": app, "metrics_port": metrics_port})
        done = run_doctor(environment, "--json")
        told = json.loads(done.stdout)
        by_check = {check["check"]: check for check in told["checks"]}
        failed = [check for check in told["checks"] if check["level"] == "fail"]
        assert (done.returncode, told["ok"], failed) == (0, True, []), done.stdout + done.stderr
        assert "has 1 member" in by_check["group"]["found"]
        assert by_check["worker"]["found"].endswith("is ready")
        assert {"python", "broker", "topics", "lag", "clock", "disk", "stores", "redis", "open files"} <= set(by_check)
        assert by_check["stores"]["found"].startswith("8 in ")
        assert by_check["kafka version"]["level"] == "ok"
        check_metrics(metrics_port)
        worker.kill()
        done = run_doctor(environment)
    assert done.returncode == 1
    assert f"fail  worker: none answers at http://{HOST}:{worker.port}. To do: start `headrace worker`" in done.stdout
    assert done.stderr == ""


def check_metrics(port: int) -> None:
    """Every metric says what it is, has its unit in its name, and labels whose values are few."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    names = {family.name for family in families}
    assert {
        "headrace_restore_seconds",
        "headrace_restore_rows",
        "headrace_checkpoint_seconds",
        "headrace_checkpoint_rows",
    } <= names
    assert {
        "headrace_store_bytes",
        "headrace_disk_free_bytes",
        "headrace_cache_lookups",
        "headrace_index_recall_ratio",
    } <= names
    assert {"headrace_online_drifts", "process_resident_memory_bytes", "process_open_fds"} <= names
    for family in families:
        assert len(family.documentation) > 5, family.name
        assert family.name.startswith(("headrace_", "process_")), family.name
        for says, unit in UNITS.items():
            if family.documentation.startswith(says) and family.name.startswith("headrace_"):
                assert family.name.endswith(unit), f"{family.name}: {family.documentation}"
        series = {
            tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
            for sample in family.samples
        }
        assert len(series) < MOST_SERIES, family.name
    [restored] = [family for family in families if family.name == "headrace_restore_seconds"]
    assert sum(sample.value for sample in restored.samples if sample.name.endswith("_count")) >= 1
    [stored] = [family for family in families if family.name == "headrace_store_bytes"]
    assert all(sample.value > 0 for sample in stored.samples)


@pytest.mark.broker
def test_topics_that_differ_are_named_and_all_of_them(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = "doctor-topics"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap)
    evidence = evidence_topic(app, "v1")
    wrong = {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime", "min.insync.replicas": "2"}
    wanted = [spec for spec in specs(app, "v1", 4) if spec.name != evidence]
    ensure_topics(bootstrap, [*wanted, TopicSpec(evidence, 4, wrong)])
    checks = KafkaChecks(Settings(app=app, partitions=3))
    assert only(checks.broker()).level is Level.OK
    assert only(checks.version()).found == "v1 is active"
    found = list(checks.topics())
    told = {(finding.check, finding.found) for finding in found if finding.level is Level.FAIL}
    assert ("topics", f"missing: {app}-versions") in told
    assert ("topic interactions", "4 partitions, expected 3") in told
    assert (f"topic {evidence}", "cleanup.policy=compact, expected delete") in told
    assert (f"topic {evidence}", "min.insync.replicas=2 of 1 replicas: every write is refused") in told
    assert all(finding.do for finding in found)
    assert levels(checks.group())["group"] is Level.WARN  # nobody is in it


def test_a_broker_that_is_away_stops_no_other_check(tmp_path: Path) -> None:
    address = f"{HOST}:{free_port(HOST)}"
    environment = worker_environment(address, tmp_path, free_port(HOST), {})
    done = run_doctor(environment, "--json")
    told = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert told["broker"]["level"] == "fail"
    assert address in told["broker"]["found"]
    assert told["disk"]["level"] == told["redis"]["level"] == "ok"


def test_wrong_settings_are_a_finding(tmp_path: Path) -> None:
    environment = worker_environment("x:1", tmp_path, 6066, {"partitions": 0})
    done = run_doctor(environment)
    assert done.returncode == 1
    assert "fail  settings: HEADRACE_PARTITIONS='0'" in done.stdout


def test_no_broker_at_all_is_a_finding(tmp_path: Path) -> None:
    finding = only(KafkaChecks(Settings(home=tmp_path)).broker())
    assert (finding.level, "no embedded broker runs" in finding.found) == (Level.FAIL, True)


def test_a_check_that_hangs_or_raises_is_a_finding() -> None:
    def hangs() -> Iterable[Finding]:
        yield ok("first", "well")
        time.sleep(60)

    def raises() -> Iterable[Finding]:
        yield ok("first", "well")
        raise ValueError("two\n lines")

    began = time.monotonic()
    assert levels(findings_of("slow", hangs, 0.5)) == {"first": Level.OK, "slow": Level.FAIL}
    assert time.monotonic() - began < 10
    assert findings_of("broken", raises)[-1].found == "two lines"


def test_a_full_disk_is_a_finding(small_disk: SmallDisk) -> None:
    settings = Settings(home=small_disk.path)
    assert only(doctor_machine.disk(settings)).level is Level.FAIL  # 6 MB
    left = shutil.disk_usage(small_disk.path).free
    (small_disk.path / "filler").write_bytes(b"\0" * left)
    finding = only(doctor_machine.disk(settings))
    assert (finding.level, finding.do) == (Level.FAIL, "make room")
    assert "cannot be written" in finding.found


def test_a_folder_that_cannot_be_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert only(doctor_machine.disk(Settings(home=tmp_path / "file"))).level is Level.FAIL
    assert only(doctor_machine.disk(Settings(home=tmp_path / "new" / "home"))).level in (Level.OK, Level.WARN)
    assert not (tmp_path / "new").exists()


def test_stores_of_another_release_and_broken_ones_are_findings(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    store = RocksStore(settings.state_dir / "users-0")
    store.write([(CUT_KEY, b'{"version":99,"next":{}}')], 7)
    finding = only(doctor_machine.stores(settings))  # while it is open elsewhere, as in a worker
    store.close()
    assert (finding.check, finding.level) == ("store users-0", Level.FAIL)
    assert "layout 99" in finding.found
    broken = RocksStore(settings.state_dir / "users-1")
    broken.close()
    (settings.state_dir / "users-1" / "CURRENT").write_text("nonsense\n")
    assert levels(doctor_machine.stores(settings)) == {"store users-0": Level.FAIL, "store users-1": Level.FAIL}


def test_a_redis_that_is_away_or_refuses_is_a_finding(tmp_path: Path) -> None:
    port = free_port(HOST)
    finding = only(doctor_machine.redis(Settings(redis_url=f"redis://u:s3cret@{HOST}:{port}")))
    assert finding.level is Level.FAIL
    assert "s3cret" not in finding.found
    assert only(doctor_machine.redis(Settings(redis_url="nonsense"))).level is Level.FAIL
    with RedisServer(tmp_path / "redis") as server:
        assert only(doctor_machine.redis(Settings(redis_url=server.url))).level is Level.OK
        finding = only(doctor_machine.redis(Settings(redis_url=f"redis://u:s3cret@{HOST}:{server.port}")))
    assert finding.level is Level.FAIL
    assert "Redis refuses us" in finding.found
    assert "s3cret" not in finding.found + finding.do


def test_a_port_that_is_taken_by_no_worker_is_a_finding() -> None:
    import socket

    with socket.create_server((HOST, 0)) as other:
        finding = only(doctor_machine.worker(Settings(web_port=other.getsockname()[1])))
    assert finding.level is Level.FAIL
    assert "does not answer as a worker" in finding.found
