"""A share of a process's CPU time for work that can be left out: a token bucket of CPU seconds.

Flows in: the CPU time that the process takes, and that of the work. Flows out: the rate at which the work may be done now. Always
holds: over any time no more is spent than the share of what the process takes and a burst; what chance adds is paid back.

The share is of the process's CPU time, not of the time that passes: on a machine that others use, a worker gets a fraction of a core,
and a tenth of the core would be most of what it has.
"""

from collections.abc import Callable

#: Seconds that may be saved up: the loop is held for no longer by what was left over.
BURST_S = 0.01
#: What a piece of work is taken to cost before one was measured, and how fast that follows what is measured.
FIRST_COST_S = 0.002
COST_RATE = 0.05


class Budget:
    """Seconds of work, of which `share` comes in for each second that the process works.

    Parameters
    ----------
    share : 0 to 1, which means all, whatever it takes
    process, thread : clocks of CPU time, in seconds: of the process, and of the thread that does the work
    """

    def __init__(self, share: float, process: Callable[[], float], thread: Callable[[], float]) -> None:
        self.share = share
        self._process, self._thread = process, thread
        self._left_s = 0.0
        self._at_s = self._began_s = process()
        self._cost_s = FIRST_COST_S
        self._works_from_s = 0.0
        #: Seconds spent so far.
        self.spent_s = 0.0

    @property
    def process_s(self) -> float:
        """What the process has worked since the start."""
        return self._process() - self._began_s

    def begin(self) -> None:
        """Work begins."""
        self._works_from_s = self._thread()
        now_s = self._process()
        self._left_s = min(self._left_s + self.share * (now_s - self._at_s), BURST_S)
        self._at_s = now_s

    def rate(self, wanted: int) -> float:
        """The probability with which each of `wanted` pieces may be done, so that together they use up what there is."""
        if self.share >= 1.0:
            return 1.0
        return min(1.0, max(self._left_s, 0.0) / (max(wanted, 1) * self._cost_s))

    def end(self, done: int) -> None:
        """Work ends, `done` pieces of it."""
        took_s = self._thread() - self._works_from_s
        self.spent_s += took_s
        self._left_s -= took_s
        if done:
            self._cost_s += COST_RATE * (took_s / done - self._cost_s)
