"""`headrace simulate`: a made-up audience that never stops, for trying a deployment out.

Settings flow in; videos and then events flow into Kafka at a steady rate, and lists are asked for meanwhile if a worker is named.
Always holds: an event's time is that of its sending. Who does what is the same for the same seed.
"""

import time
from collections.abc import Iterator
from typing import Annotated

import structlog
import typer
from msgspec.structs import replace

from infra.embedded_kafka import ensure_broker
from infra.logs import configure_logs
from infra.settings import Settings
from ingestion.client import Client, ServiceError
from ingestion.produce import produce_events, produce_videos
from ingestion.simulate import Audience
from topics.catalog import Video
from topics.interactions import Interaction
from topics.specs import ensure_topics, specs

log = structlog.get_logger(__name__)
#: A list for one in so many events: about what a feed asks for.
EVENTS_A_LIST = 10
NO_END = 2**62


def simulate(
    rate: Annotated[float, typer.Option(min=0.1, max=100_000, help="Events a second.")] = 100.0,
    users: Annotated[int, typer.Option(min=1, help="How many there are.")] = 2_000,
    videos: Annotated[int, typer.Option(min=1, help="How many there are.")] = 2_000,
    events: Annotated[int | None, typer.Option(min=1, help="Stop after this many; by default never.")] = None,
    ask: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask this worker for lists too, with HEADRACE_API_KEY.")
    ] = None,
) -> None:
    """Send a made-up audience's events to Kafka, at a steady rate, and ask for lists.

    Its users and videos are called user-N and video-N: nothing for a broker that has real ones.
    """
    settings = Settings()
    configure_logs(settings.log_format, settings.log_level)
    audience = Audience(settings.seed, users, videos)
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    client = None if ask is None else Client(ask, key, retries=0)
    with ensure_broker(settings) as bootstrap:
        ensure_topics(bootstrap, specs(settings.app, settings.version, settings.partitions))
        # Ids of events are the audience's: another run begins with other ones, or all would be known.
        run = f"{time.time_ns():x}"
        produce_videos(bootstrap, [(video_id, _published(video)) for video_id, video in audience.videos()])
        log.info("simulating", users=users, videos=videos, events_per_s=rate, asks=ask)
        done = produce_events(bootstrap, _paced(audience.events(events or NO_END), rate, run, client))
    typer.echo(f"{done.records:,} events confirmed in {done.seconds:.1f} s")


def _published(video: Video) -> Video:
    """All of it is there from the start: times of the audience's own are long past."""
    return replace(video, published_ms=None)


def _paced(events: Iterator[Interaction], rate: float, run: str, client: Client | None) -> Iterator[Interaction]:
    """Each event at its moment, with the time of sending; late ones are not sent in a hurry."""
    due = time.monotonic()
    for number, event in enumerate(events):
        due = max(due + 1 / rate, time.monotonic() - 1.0)
        if (pause_s := due - time.monotonic()) > 0:
            time.sleep(pause_s)
        if client is not None and number % EVENTS_A_LIST == 0:
            _ask(client, event.user_id)
        yield replace(event, event_id=f"{run}-{event.event_id}", at_ms=int(time.time() * 1000))


def _ask(client: Client, user_id: str) -> None:
    try:
        client.recommend(user_id)
    except ServiceError as error:  # a worker that starts anew; events go on
        log.warning("no list", error=str(error))
