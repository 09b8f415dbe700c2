"""The `headrace` command: its subcommands, each in a file of its own, and one way to end on an error.

A subcommand is a plain function that typer reads; what an operator must see is raised as one of `OPERATOR_ERRORS` and
ends the command with one line on stderr and exit status 1, without a traceback.
"""

import sys
from collections.abc import Callable
from typing import Any

import typer

from cli.broker import broker
from cli.chaos import chaos
from cli.demo import demo
from cli.demo_machinery import DemoError
from cli.demo_probes import ProbeFailed
from cli.digest import digest
from cli.doctor import doctor
from cli.embed import embed
from cli.evaluate import evaluate
from cli.ingest import ingest
from cli.keys import KeyRefused, keys
from cli.lake import lake
from cli.models import models
from cli.pull import pull
from cli.recommend import recommend
from cli.refit import RefitUnavailable
from cli.replay import BadCandidate, ReplayError, VersionInUse, replay
from cli.report import ReportUnavailable
from cli.simulate import simulate
from cli.verify import verify
from cli.versions import UnknownVersion, VersionMoves, versions
from cli.worker import PortTaken, worker
from cli.worker_client import WorkerRefused, WorkerUnavailable
from infra.embedded_kafka import BrokerError
from infra.kafka_probe import BrokerRefused
from infra.settings import SettingsError
from ingestion.bad_file import BadFile
from ingestion.event_table import NothingPositive, UnknownRule
from ingestion.lake.errors import LakeError
from ingestion.produce import DeliveryFailed
from ingestion.sources.batch import SourceError
from state.errors import StateError
from topics.rejected import Rejected
from topics.specs import TopicMismatch, TopicsUnavailable
from topics.versions import BadVersionRecord

OPERATOR_ERRORS: tuple[type[Exception], ...] = (
    *(SettingsError, BrokerError, BrokerRefused, TopicMismatch, TopicsUnavailable),
    *(BadFile, DeliveryFailed, LakeError, SourceError, Rejected, UnknownRule, NothingPositive),
    *(RefitUnavailable, ReportUnavailable),
    *(BadCandidate, ReplayError, VersionInUse, UnknownVersion, VersionMoves, BadVersionRecord, KeyRefused),
    *(StateError, PortTaken, WorkerUnavailable, WorkerRefused, DemoError, ProbeFailed, OSError),
)
INTERRUPTED_STATUS = 130  # 128 + SIGINT, as shells expect after Ctrl-C

app = typer.Typer(
    name="headrace",
    help="An online video recommender that learns from every interaction as it arrives.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def register(command: Callable[..., Any], *, name: str | None = None) -> None:
    """Add `command` as a subcommand under its own name, or `name`."""
    app.command(name)(command)


@app.callback()
def _root() -> None:
    """An online video recommender that learns from every interaction as it arrives."""


register(broker)
register(chaos)
register(demo)
register(digest)
register(doctor)
register(embed)
register(evaluate)
register(ingest)
app.add_typer(keys, name="keys")
app.add_typer(lake, name="lake")
app.add_typer(models, name="models")
app.add_typer(pull, name="pull")
register(recommend)
register(replay)
register(simulate)
register(verify)
register(versions)
register(worker)


def main() -> None:
    """Run the command line; the console script's entry."""
    try:
        app()
    except OPERATOR_ERRORS as error:
        print(f"headrace: {error}", file=sys.stderr)  # noqa: T201  stderr is where a command's errors belong
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_STATUS)


if __name__ == "__main__":
    main()
