"""`headrace evaluate`: how good are the lists? Replays a log without a broker and ranks before it learns."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ingestion.event_table import DEFAULT_RULE
from ingestion.source import Format, read_event_table, read_videos

if TYPE_CHECKING:
    from cli.prequential import Result


def evaluate(
    events: Annotated[Path, typer.Option(help="CSV, Parquet or JSON lines of events.")],
    videos: Annotated[Path | None, typer.Option(help="CSV, Parquet or JSON lines of the catalogue.")] = None,
    format: Annotated[Format | None, typer.Option(help="Of the files; else told by their columns.")] = None,  # noqa: A002
    positive: Annotated[
        str,
        typer.Option(
            help="What is positive: default, a label of the file (long_view), or events: like,share,long_watch."
        ),
    ] = DEFAULT_RULE,
    warmup: Annotated[
        float, typer.Option(min=0.0, max=0.95, help="Share of the positives learned before any is reported.")
    ] = 0.3,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Length of the list.")] = 10,
    rank_every: Annotated[int, typer.Option(min=1, help="Rank each so many-th positive only.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of first vectors and negatives.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Rank the unseen catalogue for each positive event, then learn it, by the code that serves."""
    # Loads the models' compiled loops, for which other commands need not wait.
    from cli.prequential import Evaluator

    table = read_event_table(events, format)
    catalogue = [] if videos is None else list(read_videos(videos, format))
    evaluator = Evaluator(
        table, catalogue, table.positive(positive), warmup=warmup, k=k, rank_every=rank_every, seed=seed
    )
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{events.name}: {len(table):,} events", total=len(table))
        result = evaluator.run(lambda done: progress.update(task, completed=done))
    if json:
        sys.stdout.buffer.write(orjson.dumps(result.to_json()) + b"\n")
        return
    Console().print(_table(result))
    Console().print(
        f"n = {result.arms['served'].n:,} ranked positives ({result.cold['served'].n:,} of cold users), {result.events:,} events; "
        f"learning {result.to_json()['learn_us']} µs an event, ranking {result.to_json()['rank_us']} µs"
    )


def _table(result: "Result") -> Table:
    names = list(result.arms["served"].metrics(result.k))
    table = Table(title="prequential, whole unseen catalogue")
    table.add_column("arm")
    for name in (*names, "recall, cold", "recall, warm"):
        table.add_column(name, justify="right")
    for arm in result.arms:
        means = result.arms[arm].metrics(result.k)
        split = [group[arm].metrics(result.k)[f"recall@{result.k}"] for group in (result.cold, result.warm)]
        table.add_row(arm, *(f"{means[name]:.4f}" for name in names), *(f"{value:.4f}" for value in split))
    return table
