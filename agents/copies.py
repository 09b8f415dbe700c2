"""What becomes of rows that a copied shard's changelogs bring.

Flows in: committed rows, on the loop. Flows out: videos in the replica, users that are read anew when they are asked for. Always
holds: nothing is learned, and nothing of a shard is touched that this worker owns.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from state.engine import Engine
from state.standby import Standby
from state.store import Row


class Copies(NamedTuple):
    """Hears of what is tailed (`agents.standbys.Listener`).

    Attributes
    ----------
    engine : where it goes
    fail : told why nothing comes any more
    keeps_clock : nobody else sets the clock that lists are read by
    """

    engine: Engine
    fail: Callable[[Exception], None]
    keeps_clock: bool

    def opened(self, standby: Standby) -> None:
        """A shard's copy can be read."""
        self.engine.add_standby(standby)

    def changed(self, standby: Standby, users: Sequence[bytes], items: Sequence[Row]) -> None:
        """Users (keys of their rows) and videos have changed."""
        if items:
            self.engine.take_rows(items)
        self.engine.reread_users(standby.partition, users)
        if self.keeps_clock:
            self.engine.replica.stream_ms = max(self.engine.replica.stream_ms, standby.cut.clock_ms)

    def failed(self, error: Exception) -> None:
        """The thread has ended."""
        self.fail(error)
