"""What `headrace replay` shows: a bar in a terminal, a line now and then elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from cli.replay_build import Progress

LINE_EVERY_S = 5.0


class ReplayView:
    """Shows the progress of a building for the `with` block."""

    def __init__(self, console: Console, version: str) -> None:
        self._console, self._version = console, version
        self._next_line = 0.0
        self._bars: Bars | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rest]}"),
            )
            self._bars = Bars(*columns, console=console)
        self._task: TaskID | None = None

    def __enter__(self) -> "ReplayView":
        if self._bars is not None:
            self._bars.start()
            self._task = self._bars.add_task(self._version, total=None, rest="starting")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, progress: Progress) -> None:
        """Bring it up to date."""
        total = 0 if progress.target is None else progress.target.records
        rest = f"{progress.rate:,.0f} records/s, {_left(progress, total)}, lag {progress.lag:,}"
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=min(progress.applied, total), total=total, rest=rest)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_S
            self._console.print(f"{self._version}: {progress.applied:,} of {total:,} records, {rest}", soft_wrap=True)


def _left(progress: Progress, total: int) -> str:
    left = max(0, total - progress.applied)
    if not left:
        return "applying evidence"
    return f"about {left / progress.rate:,.0f} s left" if progress.rate else "time left unknown"
