"""`headrace broker`: the embedded Kafka alone, for as long as the terminal wants it."""

import signal
import threading
from typing import Annotated

import typer

from infra.embedded_kafka import EmbeddedKafka
from infra.logs import configure_logs
from infra.settings import Settings

CHECK_INTERVAL_S = 0.5


def broker(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="To listen on; by default the last one, or a free one.")
    ] = None,
) -> None:
    """Run the embedded Kafka broker and print its address, until Ctrl-C.

    Workers, imports and the demo that use the same HEADRACE_HOME find it and leave it running.
    """
    settings = Settings()
    configure_logs(settings.log_format, settings.log_level)
    ended = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: ended.set())
    with EmbeddedKafka(settings.home, port=port) as kafka:
        typer.echo(kafka.bootstrap)
        while not ended.wait(CHECK_INTERVAL_S):
            kafka.check()
