"""Somebody who does what the pages say: a folder with files as the pages name them, a broker, a worker, and a shell."""

import os
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from cli.worker_process import HOST
from ingestion.simulate import Audience
from tests.docs.fences import ROOT, Block

PREFIX = "HEADRACE_"
TIMEOUT_S = 60.0
#: A few hundred events, of which a few dozen are positive.
USERS, VIDEOS, EVENTS = 30, 60, 800


class Reader:
    """Runs blocks of pages, each in a shell of its own, those of one page in one folder.

    Parameters
    ----------
    folder : is filled; of this reader alone
    bootstrap, port : of a broker, and of a worker that is ready
    home : HEADRACE_HOME of commands
    """

    def __init__(self, folder: Path, bootstrap: str, port: int, home: Path) -> None:
        self.folder, self.bootstrap, self.port, self.home = folder, bootstrap, port, home

    def run(self, block: Block) -> subprocess.CompletedProcess[str]:
        """Run a block to its end."""
        place = self.folder / re.sub(r"\W+", "-", block.page)
        if not place.exists():
            place.mkdir(parents=True)
            lay_files(place)
        script = self.here(block.script)
        if block.language == "python" and block.mark != "run as":
            command = [sys.executable, "-c", script]
        else:
            command = ["bash", "-euo", "pipefail", "-c", script]
        return subprocess.run(
            command, cwd=place, env=self.environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )

    def here(self, script: str) -> str:
        """A script with the addresses of this broker and worker instead of the usual ones."""
        script = re.sub(r"(localhost|127\.0\.0\.1):6066", f"{HOST}:{self.port}", script)
        return re.sub(r"(localhost|127\.0\.0\.1):9092", self.bootstrap, script)

    def environment(self) -> dict[str, str]:
        """Variables of a command: ours, but for settings, and the addresses."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "KAFKA_", "REDIS_"))}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
            "PYTHONPATH": str(ROOT),
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            f"{PREFIX}HOME": str(self.home),
            f"{PREFIX}WEB_PORT": str(self.port),
            "COLUMNS": "120",
        }


def lay_files(folder: Path) -> None:
    """Put what the pages' commands read into a folder: `events.csv`, `videos.csv` and the repository's `examples`."""
    audience = Audience(1, USERS, VIDEOS)
    (folder / "examples").symlink_to(ROOT / "examples")
    names = ("event_id", "user_id", "video_id", "event", "at_ms", "watch_seconds", "duration_seconds")
    rows = [[getattr(event, name) for name in names] for event in islice(audience.events(EVENTS), EVENTS)]
    (folder / "events.csv").write_text(_csv(names, rows), encoding="utf-8")
    videos = [[name, video.title, video.duration_seconds] for name, video in audience.videos()]
    (folder / "videos.csv").write_text(_csv(("video_id", "title", "duration_seconds"), videos), encoding="utf-8")
    (folder / "places.json").write_bytes(orjson.dumps({"interactions": {"0": 0}}))


def _csv(names: tuple[str, ...], rows: list[list[Any]]) -> str:
    lines = [",".join("" if part is None else f'"{part}"' for part in row) for row in rows]
    return "\n".join([",".join(names), *lines]) + "\n"
