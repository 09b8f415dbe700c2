"""What `headrace doctor` finds: one line a check, and checks that cannot hang it.

A check is a function without arguments that gives findings. Always holds: whatever it does, raises or waits for, it is over within its
time, and becomes findings.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

#: For one check; what takes longer is not well.
CHECK_TIMEOUT_S = 15.0


class Level(StrEnum):
    """How bad it is: nothing to do, something to know, something that does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """What was found, in one line each, and what to do; empty for what is well."""

    check: str
    level: Level
    found: str
    do: str = ""


Check = Callable[[], Iterable[Finding]]


def ok(check: str, found: str) -> Finding:
    """It is well."""
    return Finding(check, Level.OK, found)


def warn(check: str, found: str, do: str) -> Finding:
    """It works, and somebody should know."""
    return Finding(check, Level.WARN, found, do)


def fail(check: str, found: str, do: str) -> Finding:
    """It does not work."""
    return Finding(check, Level.FAIL, found, do)


def findings_of(name: str, check: Check, timeout_s: float = CHECK_TIMEOUT_S) -> list[Finding]:
    """Run one check, and give what it found; that it failed, if it raised or did not end in time."""
    found: list[Finding] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            for finding in check():
                found.append(finding)  # noqa: PERF402 - what was found before it hangs counts
        except Exception as error:  # noqa: BLE001 - whatever is wrong is a finding
            errors.append(error)

    # A daemon: one that hangs is left behind when the command ends.
    thread = threading.Thread(target=run, name=f"check-{name}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    done = list(found)
    if thread.is_alive():
        done.append(fail(name, f"no answer in {timeout_s:.0f} s", "see whether what it asks is overloaded, or cut off"))
    for error in errors:
        text = " ".join(str(error).split()) or type(error).__name__
        done.append(fail(name, text if len(text) < 400 else f"{text[:400]}...", "see docs/operations.md#doctor"))
    return done
