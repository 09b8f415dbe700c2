"""Logging: one structlog configuration for the process, and the standard library's loggers through it.

Log calls flow in, lines on stderr flow out: coloured for a person or one JSON object a line. Stdout is never written
to: it belongs to the commands' own output.
"""

import logging
import sys
from typing import Literal

import structlog

# Their INFO lines tell of every partition and rebalance step: hundreds a start. Shown at debug only.
CHATTY_LOGGERS = ("aiokafka", "faust", "mode", "aiohttp.access", "opentelemetry")
# What every start on a fresh broker says while its group coordinator comes up, at ERROR.
HARMLESS = ("GroupCoordinatorNotAvailableError", "CoordinatorLoadInProgressError")
SERVICE_MARK = "[^"
REPEAT_S = 30.0
MOST_SAID = 1_000


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line tells an operator anything: not the start and stop of each inner service, nor a coordinator's."""
    text = str(record.msg)
    if record.levelno <= logging.INFO and text.startswith(SERVICE_MARK):
        return False
    return not any(word in record.getMessage() for word in HARMLESS)


class Once:
    """A filter that lets a line of another library through once in `REPEAT_S`: a broker that is away is one piece of news."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is new, or its last repetition is long ago."""
        if not record.name.startswith(CHATTY_LOGGERS):
            return True
        key = (record.name, str(record.msg))
        if record.created - self._said.get(key, 0.0) < REPEAT_S:
            return False
        if len(self._said) > MOST_SAID:
            self._said.clear()
        self._said[key] = record.created
        return True


def configure_logs(log_format: Literal["console", "json"] = "console", level: str = "info") -> None:
    """Send every log of this process to stderr in `log_format`, from `level` (debug, info, warning, error) up."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[structlog.typing.Processor]
    if log_format == "json":
        renderers = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Plain: rich's, with every local variable, held the loop of a failing worker for seconds and buried the reason.
        plain = structlog.dev.plain_traceback
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    if level != "debug":
        handler.addFilter(_is_news)
        handler.addFilter(Once())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Its debug lines tell of every statement that it compiles: hundreds of thousands, and a start of minutes.
    logging.getLogger("numba").setLevel(logging.WARNING)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else max(logging.WARNING, root.level))
