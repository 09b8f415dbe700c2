"""Taking turns: of several workers that have to change to another version, one is away at a time.

Flows in: which other workers are in the group, by their URLs, and whether they answer. Flows out: whether it is our turn. The order
is that of the URLs, which all of them know from the group (`agents.owners`), so nothing has to be agreed upon. Always holds: whoever
comes before us holds us up for TURN_S at most, and not at all where nobody listens.

A worker that changes leaves the old version's group, and listens again, or still, until its next life answers. So it is through when
it is no member any more and `/readyz` says 200.
"""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

#: For each worker before us: a restart takes some seconds; one whose state has to be read from changelogs takes longer.
TURN_S = 30.0
#: A worker that left the group so lately may be changing, the first of us.
RECENT_S = 30.0
#: Between two questions, and for an answer.
ASK_EVERY_S, ANSWER_S = 0.5, 1.0


def is_through(url: str) -> bool:
    """Whether the worker at `url` is ready, or not there at all: one that is restarting listens, and does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=ANSWER_S) as answer:  # noqa: S310 - as the group has it
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False
    except urllib.error.URLError as error:
        return isinstance(error.reason, ConnectionRefusedError)
    except OSError:
        return False


class Turns:
    """Says when we may change.

    Parameters
    ----------
    own_url : where others reach us
    ask : whether a worker that has left the group is through; called in a thread
    clock : seconds, monotonic
    """

    def __init__(
        self, own_url: str, ask: Callable[[str], bool] = is_through, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._own_url, self._ask, self._clock = own_url, ask, clock
        self._seen: dict[str, float] = {}
        self._since: float | None = None
        self._latest = 0.0
        self._before: list[str] = []
        self._asked: tuple[str, Future[bool]] | None = None
        self._asked_at = float("-inf")
        self._threads = ThreadPoolExecutor(1, "turns")

    def ours(self, others: Iterable[str], *, ready: bool, wanted: bool) -> bool:
        """Whether to go now; asked again and again, also while there is nothing to change.

        Parameters
        ----------
        others : URLs of the other members of our group, as last known
        ready : we answer for all our shards: whoever is through has left some of them to us
        wanted : there is another version to change to
        """
        now, others = self._clock(), frozenset(others)
        self._seen |= dict.fromkeys(others, now)
        self._seen = {url: at for url, at in self._seen.items() if now - at < RECENT_S}
        if not wanted:
            self._since = None
            return False
        if self._since is None:
            self._since = now
            self._before = sorted(url for url in self._seen if url < self._own_url)
            self._latest = now + TURN_S * len(self._before)
        if now >= self._latest:
            return True
        while self._before and self._before[0] not in others and self._is_through(self._before[0], now):
            del self._before[0]
        return ready and not self._before

    def _is_through(self, url: str, now: float) -> bool:
        if self._asked is not None and self._asked[1].done():
            (asked, answer), self._asked = self._asked, None
            if asked == url and answer.exception() is None and answer.result():
                return True
        if self._asked is None and now - self._asked_at >= ASK_EVERY_S:
            self._asked, self._asked_at = (url, self._threads.submit(self._ask, url)), now
        return False

    def close(self) -> None:
        """Wait for no answer any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
