"""How a chaos run looks: progress on stderr (live on a terminal, else a line now and then), faults on stdout."""

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

LIVE_EVERY_S, LINE_EVERY_S = 0.5, 10.0


class View:
    """Progress and faults of a run; `state` is asked for the counts in words when they are shown."""

    def __init__(self, state: Callable[[], str]) -> None:
        self._state = state
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._began = self._shown = time.monotonic()

    def __enter__(self) -> "View":
        self._resume()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._suspend()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def show(self, doing: str) -> None:
        """Show what is happening now, if it is time to."""
        now = time.monotonic()
        if now - self._shown < (LINE_EVERY_S if self._live is None else LIVE_EVERY_S):
            return
        self._shown = now
        text = f"{self.seconds:6.1f} s  {self._state()}  {doing}"
        if self._live is None:
            self._console.print(text, markup=False, soft_wrap=True)
        else:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def tell(self, what: str) -> None:
        """Print a line with its time on stdout."""
        self._suspend()
        print(f"{self.seconds:8.3f} s  {what}", flush=True)  # noqa: T201 - stdout is for faults and the result
        self._resume()

    def _suspend(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _resume(self) -> None:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
