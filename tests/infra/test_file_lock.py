"""The lock: exclusive, held by an inheriting child for as long as it lives, and never left behind."""

import subprocess
import sys
from pathlib import Path

from infra.file_lock import FileLock


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock") as first, FileLock(tmp_path / "lock") as second:
        assert first.acquire()
        assert not second.acquire()
        assert not second.acquire(timeout_s=0.1)
        first.release()
        assert second.acquire()


def test_a_child_that_inherits_it_keeps_it_until_it_is_killed(tmp_path: Path) -> None:
    lock, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[lock.fd])
    try:
        lock.release()
        assert not other.acquire(timeout_s=0.2)
    finally:
        child.kill()
        child.wait()
    assert other.acquire()
    other.release()


def test_the_file_of_a_dead_holder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("4711")
    with FileLock(tmp_path / "lock") as lock:
        assert lock.acquire()
