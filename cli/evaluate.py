"""`headrace evaluate`: how good are the lists? Replays a log without a broker and ranks before it learns."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from cli.report import prepare, write_report
from ingestion.event_table import DEFAULT_RULE, EventTable
from ingestion.source import Format, read_event_table, read_users, read_videos
from topics.catalog import User, Video
from topics.signals import DEFAULT_SIGNALS, BadSignals, SignalTable

if TYPE_CHECKING:
    from cli.study import Study


def evaluate(
    events: Annotated[Path, typer.Option(help="CSV, Parquet or JSON lines of events.")],
    videos: Annotated[Path | None, typer.Option(help="CSV, Parquet or JSON lines of the catalogue.")] = None,
    users: Annotated[
        Path | None, typer.Option(help="CSV, Parquet or JSON lines of what is known of users beside events.")
    ] = None,
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
    arms: Annotated[
        str, typer.Option(help="What to compare, by comma: served, popularity, popularity_decayed, item_knn, mf, ...")
    ] = "",
    refit: Annotated[
        str,
        typer.Option(help="Batch models made anew every n/16 positives: ease,als; with --impressions, daily: trees."),
    ] = "",
    ablate: Annotated[
        str, typer.Option(help="Also without these, one at a time, by comma: features, groups of them, or all.")
    ] = "",
    impressions: Annotated[
        bool, typer.Option("--impressions", help="Score what was shown, not lists: AUC of long view, like and click.")
    ] = False,
    lag: Annotated[int, typer.Option(min=0, help="Events that a list does not know yet.")] = 0,
    objective: Annotated[
        str, typer.Option(help="What lists are ordered by, as HEADRACE_OBJECTIVE: choice=1,like=0.5,skip=-1.")
    ] = "",
    signals: Annotated[
        Path | None, typer.Option(help="What events say about taste, as HEADRACE_SIGNALS; a JSON file.", dir_okay=False)
    ] = None,
    evidence_lag: Annotated[
        int, typer.Option(min=0, help="Events that what all users share does not know yet, if these are more.")
    ] = 0,
    exploration: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of lists that explore; default: as a worker's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of first vectors and draws.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, max=50, help="Runs with seeds from --seed on.")] = 1,
    plot: Annotated[
        Path | None, typer.Option(help="Folder for a report: a page, and its curves as pictures.", file_okay=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Rank the unseen catalogue for each positive event, then learn it, by the code that serves."""
    # Loads the models' compiled loops, for which other commands need not wait.
    from cli.study import Study, UnknownArm
    from state.objective import DEFAULT as DEFAULT_OBJECTIVE
    from state.objective import BadObjective, Objective

    if plot is not None and not impressions:
        prepare(plot)

    table = read_event_table(events, format)
    catalogue = [] if videos is None else list(read_videos(videos, format))
    about = [] if users is None else list(read_users(users, format))
    if impressions:
        if plot is not None or arms or ablate or lag:
            raise typer.BadParameter("--impressions takes no --plot, --arms, --ablate or --lag")
        _score_impressions(events, table, catalogue, about, positive, warmup, seed, _words(refit), json)
        return
    try:
        ordered_by = Objective.parse(objective or DEFAULT_OBJECTIVE)
        said = DEFAULT_SIGNALS if signals is None else SignalTable.parse(signals.read_bytes())
    except (BadObjective, BadSignals, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    options: dict[str, Any] = {
        "warmup": warmup,
        "k": k,
        "rank_every": rank_every,
        "lag": lag,
        "objective": ordered_by,
        "signals": said,
        "evidence_lag": evidence_lag,
    }
    if exploration is not None:
        options["exploration"] = exploration
    chosen = _words(arms), _words(refit), _words(ablate)
    try:
        study = Study(table, catalogue, table.positive(positive, said), about, *chosen, options)
    except UnknownArm as error:
        raise typer.BadParameter(str(error)) from error
    with _shown(events.name) as show:
        study.run(range(seed, seed + seeds), show)
    if plot is not None:
        page = write_report(study, plot, f"{events.name}, {positive}")
        Console(stderr=True).print(f"Report: {page}", soft_wrap=True)
    if json:
        sys.stdout.buffer.write(orjson.dumps(study.to_json()) + b"\n")
        return
    console = Console()
    console.print(_table(study))
    if study.ablations:
        console.print(_ablations(study))
    console.print(_summary(study))


@contextmanager
def _shown(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """A function that shows how far what is done has come."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(f"{name}: {what}", total=of)
            progress.update(tasks[what], completed=done, total=of)

        yield show


def _score_impressions(
    events: Path,
    table: EventTable,
    catalogue: list[tuple[str, Video]],
    about: list[tuple[str, User]],
    positive: str,
    warmup: float,
    seed: int,
    refit: list[str],
    json: bool,
) -> None:
    from cli.impressions import ImpressionEvaluator, NoImpressions, compare

    if set(refit) - {"trees"}:
        raise typer.BadParameter(f"--impressions compares with trees only, not with {', '.join(refit)}")
    with _shown(events.name) as show:
        try:
            evaluator = ImpressionEvaluator(
                table, catalogue, table.positive(positive), warmup=warmup, seed=seed, users=about, progress=show
            )
        except NoImpressions as error:
            raise typer.BadParameter(str(error)) from error
        found = compare(evaluator.score(), warmup, "trees" in refit, show)
    if json:
        sys.stdout.buffer.write(orjson.dumps(found) + b"\n")
        return
    console = Console()
    console.print(_impressions(found))
    console.print(
        f"n = {found['n']:,} impressions to {found['users']:,} users, the last {100 * (1 - warmup):g}%; "
        "± is one standard error, of resampled users"
    )


def _impressions(found: dict[str, Any]) -> Table:
    table = Table(title="prequential, what was shown", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("label", "arm", "AUC", "± se", "GAUC", "± se"):
        table.add_column(name, justify="left" if name in ("label", "arm") else "right", no_wrap=True)
    for label, measured in found["labels"].items():
        for arm, values in measured["arms"].items():
            table.add_row(label, arm, *(f"{values[name]:.4f}" for name in ("auc", "auc_se", "gauc", "gauc_se")))
    return table


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _summary(study: "Study") -> str:
    first = study.runs[0]
    n, cold, young = first.n, sum(first.positions.cold), sum(first.positions.young)
    seeds = f", {len(study.runs)} seeds" if len(study.runs) > 1 else ""
    of_young = f"{study.arms('young')['served'][f'recall@{study.k}']:.4f} of {young:,}" if young else "there are none"
    return (
        f"n = {n:,} ranked positives ({cold:,} of cold users), {first.events:,} events{seeds}; "
        f"served, of young videos: {of_young}; "
        f"learning {study.learn_us:.1f} µs an event, ranking {study.rank_us:.1f} µs"
    )


def _table(study: "Study") -> Table:
    """What fits on a narrow screen; `--json` has the rest."""
    everyone, groups = study.arms(), (study.arms("cold"), study.arms("warm"))
    recall, ndcg = f"recall@{study.k}", f"ndcg@{study.k}"
    table = Table(title="prequential, whole unseen catalogue", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("arm", no_wrap=True)
    for name in (recall, "± se", ndcg, "cold", "warm", "served is"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm, means in everyone.items():
        shown = [f"{means[name]:.4f}" for name in (recall, "se", ndcg)]
        ratio, error = study.ratio(arm)
        times = "" if arm == "served" or ratio != ratio else f"{ratio:.2f} ± {error:.2f}"
        table.add_row(arm, *shown, *(f"{group[arm][recall]:.4f}" for group in groups), times)
    return table


def _ablations(study: "Study") -> Table:
    table = Table(title="served without a part", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("without", f"recall@{study.k}", "difference", "standard error"):
        table.add_column(name, justify="left" if name == "without" else "right")
    rows: Sequence[tuple[str, float, float, float]] = study.ablated()
    for name, recall, difference, error in rows:
        table.add_row(name, f"{recall:.4f}", f"{difference:+.4f}", f"{error:.4f}")
    return table
