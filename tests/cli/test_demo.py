"""`headrace demo`: as a newcomer starts it, and what it says where it cannot go on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import main
from infra.file_lock import FileLock

KEYS = (
    *("source", "rows", "produced", "learned", "ignored", "duplicate", "dead"),
    *("events_per_s", "freshness_p50_ms", "freshness_p99_ms"),
)


DEMO = (sys.executable, "-m", "cli.main", "demo")


def environment(folder: Path) -> dict[str, str]:
    """Ours, with a home of its own in `folder` and no data at hand."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "KAFKA_"))}
    return kept | {"HEADRACE_DATA": str(folder), "HEADRACE_HOME": str(folder / "home")}


def assert_no_child_runs(folder: Path) -> None:
    for name in ("worker.lock", "kafka/broker.lock"):  # held for as long as the child lives
        with FileLock(folder / "home" / "demo" / name) as lock:
            assert lock.acquire(), f"{name}: still running"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["headrace", "demo", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.broker
def test_once_ends_with_counts_that_add_up(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--once", "--limit", "2000"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary.keys() >= set(KEYS)
    assert (summary["source"], summary["rows"]) == ("simulated", 2000)
    # at least one event a row, and a like by the demo's own user
    assert summary["produced"] > 2000
    assert summary["produced"] == sum(summary[name] for name in ("learned", "ignored", "duplicate", "dead"))
    assert summary["duplicate"] == summary["dead"] == 0
    assert summary["learned"] > 0
    assert summary["events_per_s"] > 0
    assert 0 < summary["freshness_p50_ms"] <= summary["freshness_p99_ms"]
    assert_no_child_runs(tmp_path)


@pytest.mark.broker
def test_it_stays_up_until_ctrl_c(tmp_path: Path) -> None:
    with (
        (tmp_path / "errors").open("w+") as errors,
        subprocess.Popen(
            [*DEMO, "--limit", "200"], env=environment(tmp_path), stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("Ctrl-C ends"):
                break
        assert "\n  curl " in said, said
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0, said
        errors.seek(0)
        assert errors.read() == ""
    assert_no_child_runs(tmp_path)


def test_one_demo_at_a_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path))
    (tmp_path / "demo").mkdir()
    kept = tmp_path / "demo" / "kept"
    kept.touch()
    with FileLock(tmp_path / "demo.lock") as lock:
        assert lock.acquire()
        assert run(monkeypatch, "--once") == 1
    assert capsys.readouterr().err.startswith(f"headrace: another demo runs in {tmp_path / 'demo'}: ")
    assert kept.exists()


@pytest.mark.parametrize("arguments", [("--limit", "0"), ("--speed", "0"), ("--speed", "fast"), ("somewhere",)])
def test_arguments_are_checked_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    assert run(monkeypatch, *arguments) == 2
    assert not (tmp_path / "home").exists()
