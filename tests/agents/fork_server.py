"""Starts workers by fork: what a worker loads is loaded once, so that a life costs half a second and a test can afford many.

Reads one JSON request a line from stdin, writes one JSON answer a line to stdout:
`{"environment", "log", "fault", "constants"}` starts a worker and answers its process id, `{"poll": pid}` answers its exit status
(minus the signal's number, as subprocess has it) or null. A worker that starts anew by itself is a plain `headrace worker`.
"""

import gc
import json
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

import cli.worker_life  # noqa: F401 - loaded before the first fork
from cli import main as headrace
from tests.agents.faults import Fault, inject, set_constants
from tests.agents.world import liked, world


def main() -> None:
    """Serve until stdin ends."""
    # Compiled loops are loaded when they are first called.
    warm = world(partitions=1)
    warm.send(*(liked("user", f"video{n}", n) for n in range(3)))
    warm.settle()
    # A worker's collector would copy the pages of all that is loaded, only to find that it stays.
    gc.collect()
    gc.freeze()
    running: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            answer = _poll(request["poll"])
            if answer is not None:
                running.discard(request["poll"])
        else:
            answer = _start(request)
            running.add(answer)
        print(json.dumps(answer), flush=True)  # noqa: T201 - the protocol
    # Tests that were killed have ended none of theirs.
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _poll(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _start(request: dict[str, Any]) -> int:
    pid = os.fork()
    if not pid:
        _become_worker(request)
    return pid


def _become_worker(request: dict[str, Any]) -> NoReturn:
    status = 1
    try:
        os.environ.clear()
        os.environ.update(request["environment"])
        nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for fd, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(fd, target)
        sys.argv = ["headrace", "worker"]
        sys.orig_argv = [sys.executable, "-m", "cli.main", "worker"]
        set_constants(request["constants"])
        if request["fault"]:
            inject(Fault(**request["fault"]))
        headrace.main()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the log shows it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
