"""Logging: one structlog configuration for the process, and the standard library's loggers through it.

Log calls flow in, lines on stderr flow out: coloured for a person or one JSON object a line. Stdout is never written
to: it belongs to the commands' own output.
"""

import logging
import sys
from typing import Literal

import structlog

# Their INFO lines tell of every partition and rebalance step: hundreds a start.
CHATTY_LOGGERS = ("aiokafka", "faust", "mode", "aiohttp.access")
# What every start on a fresh broker says while its group coordinator comes up, at ERROR.
HARMLESS = ("GroupCoordinatorNotAvailableError", "CoordinatorLoadInProgressError")
SERVICE_MARK = "[^"


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line tells an operator anything: not the start and stop of each inner service, nor a coordinator's."""
    text = str(record.msg)
    if record.levelno <= logging.INFO and text.startswith(SERVICE_MARK):
        return False
    return not any(word in record.getMessage() for word in HARMLESS)


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
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
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
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
