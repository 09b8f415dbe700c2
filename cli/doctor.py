"""`headrace doctor`: look at everything that a worker needs, and say in a line each what is well and what to do where it is not."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from cli.doctor_kafka import KafkaChecks
from cli.findings import Check, Finding, Level, fail, findings_of, warn
from infra.settings import Settings, SettingsError

COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Check brokers, topics, group, stores, clock, Redis and the worker on this machine; changes nothing.

    Ends with status 1 if anything fails. A check that hangs is given up after a while, and does not stop the others.
    """
    logging.disable(logging.CRITICAL)  # what goes wrong is found, and said once
    found: list[Finding] = []
    console = Console(highlight=False, soft_wrap=True)
    for finding in _examine():
        found.append(finding)
        if not as_json:
            console.print(_line(finding))
    failed = sum(finding.level is Level.FAIL for finding in found)
    warned = sum(finding.level is Level.WARN for finding in found)
    if as_json:
        typer.echo(json.dumps({"ok": not failed, "checks": [asdict(finding) for finding in found]}))
    else:
        console.print(f"{len(found)} checks: {failed} failed, {warned} to know of")
    raise typer.Exit(1 if failed else 0)


def _examine() -> Iterator[Finding]:
    """All findings, each as soon as it is there."""
    from cli import doctor_machine as machine

    yield from findings_of("python", machine.python)
    try:
        settings = Settings()
    except SettingsError as error:
        yield fail("settings", str(error), "correct these variables: nothing else can be looked at")
        return
    kafka = KafkaChecks(settings)
    yield from findings_of("broker", kafka.broker)
    of_kafka: dict[str, Check] = {
        "security": kafka.security,
        "kafka version": kafka.release,
        "version": kafka.version,
        "topics": kafka.topics,
        "group": kafka.group,
        "clock": kafka.clock,
    }
    if kafka.reached:
        for name, check in of_kafka.items():
            yield from findings_of(name, check)
    else:
        yield warn("topics", "not looked at, nor security, version, group and clock: no broker answers", "see broker")
    for name, local in {
        "disk": machine.disk,
        "stores": machine.stores,
        "open files": machine.open_files,
        "redis": machine.redis,
        "worker": machine.worker,
    }.items():
        yield from findings_of(name, partial(local, kafka.serving))


def _line(finding: Finding) -> Text:
    line = Text(f"{finding.level:<4}", style=COLOURS[finding.level])
    line.append(f"  {finding.check}: ", style="bold")
    line.append(finding.found, style="default")
    if finding.do:
        line.append(f". To do: {finding.do}", style="default")
    return line
