"""Logs: both formats, the level, and the standard library's loggers through the same handler."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from infra.logs import configure_logs


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines_carry_event_fields_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "info")
    structlog.get_logger("headrace.test").info("broker.ready", port=9092)
    captured = capsys.readouterr()
    line = json.loads(captured.err)
    assert (line["event"], line["port"], line["level"], line["logger"]) == (
        "broker.ready",
        9092,
        "info",
        "headrace.test",
    )
    assert captured.out == ""


def test_standard_loggers_go_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "warning")
    logging.getLogger("other").warning("late by %d s", 3)
    assert json.loads(capsys.readouterr().err)["event"] == "late by 3 s"


def test_lines_below_the_level_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("console", "error")
    structlog.get_logger("headrace.test").warning("not shown")
    logging.getLogger("other").warning("not shown")
    assert capsys.readouterr().err == ""


def test_an_exception_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json")
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("headrace.test").exception("failed")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "ValueError: broken" in json.loads(lines[0])["exception"]


@pytest.mark.parametrize(("level", "heard"), [("info", False), ("debug", True)])
def test_chatty_libraries_are_heard_at_debug_only(capsys: pytest.CaptureFixture[str], level: str, heard: bool) -> None:
    configure_logs("json", level)
    logging.getLogger("aiokafka").info("metadata refreshed")
    assert ("metadata refreshed" in capsys.readouterr().err) == heard
    configure_logs("json", "info")  # library loggers keep their level beyond this test


def test_an_exception_for_a_person_is_short_and_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    """A failing worker says why in a few lines, at once."""
    configure_logs("console")
    secret = "hunter2"  # noqa: S105 - what must not be shown
    try:
        raise ValueError("broken" + secret[:0])
    except ValueError:
        structlog.get_logger("headrace.test").exception("failed")
    said = capsys.readouterr().err
    assert "ValueError: broken" in said
    assert "hunter2" not in said.replace('secret = "hunter2"', "")
    assert len(said.splitlines()) < 8
