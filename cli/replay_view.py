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
        self.tell(progress.applied, total, progress.rate, f", lag {progress.lag:,}")

    def tell(self, applied: int, total: int, rate: float, more: str = "") -> None:
        """So many records of so many are done, at so many a second."""
        rest = f"{rate:,.0f} records/s, {_left(total - applied, rate)}{more}"
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=min(applied, total), total=total, rest=rest)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_S
            self._console.print(f"{self._version}: {applied:,} of {total:,} records, {rest}", soft_wrap=True)


class Pace:
    """Tells a view how far a replay in this process is; rates are of all of it so far.

    Parameters
    ----------
    runs : replays of the same log that follow each other, and are one to who waits
    """

    def __init__(self, view: ReplayView, runs: int = 1) -> None:
        self._view, self._runs, self._run, self._began = view, runs, 0, time.monotonic()
        #: Interactions of the current run.
        self.events = 0

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def told(self, done: int, of: int) -> None:
        """So many interactions of so many of the current run are learned."""
        if done < self.events:
            self._run += 1
        self.events = done
        applied = self._run * of + done
        rate = applied / max(self.seconds, 1e-9)
        self._view.tell(applied, self._runs * of, rate)


def _left(left: int, rate: float) -> str:
    if left <= 0:
        return "applying evidence"
    return f"about {left / rate:,.0f} s left" if rate else "time left unknown"
