"""`headrace recommend USER`: ask a running worker for somebody's list."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.worker_client import WorkerClient, base_url
from infra.settings import Settings

MAX_N = 200


def recommend(
    user: Annotated[str, typer.Argument(help="A user's id; somebody unknown gets what is trending and new.")],
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=MAX_N, help="Length of the list.")] = 10,
    url: Annotated[str | None, typer.Option(help="Of the worker; by default from HEADRACE_WEB_HOST and _PORT.")] = None,
) -> None:
    """Print the list that a running worker serves to USER, with its reasons."""
    settings = Settings()
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    client = WorkerClient(url or base_url(settings.web_host, settings.web_port), key=key)
    answer = client.recommend(user, n)
    table = Table(title=f"{escape(user)} ({escape(answer['source'])})", title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("video", overflow="fold")
    table.add_column("title", overflow="fold")
    table.add_column("score", justify="right")
    table.add_column("reasons", overflow="fold")
    for rank, item in enumerate(answer["items"], 1):
        table.add_row(
            str(rank),
            escape(item["video_id"]),
            escape(item.get("title") or ""),
            f"{item['score']:.3f}",
            escape(reasons(item)),
        )
    console = Console()
    console.print(table)
    if not answer["items"]:
        console.print("No videos yet: load a catalogue or events with `headrace ingest`.")


def reasons(item: dict[str, Any]) -> str:
    """An item's reasons in one line."""
    return "; ".join(reason["text"] for reason in item["reasons"])
