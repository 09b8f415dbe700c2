"""How much a client may ask for: a token bucket each, in the memory of a worker.

Clients' names flow in, seconds to wait flow out. A bucket is one number, the time at which all that was spent will be paid back (the
generic cell rate algorithm), so nothing has to be refilled, and who has paid back may be forgotten. Always holds: over any time a
client gets its burst and the rate at most, and what a single request costs beyond a burst; the clients in memory are bounded.

Each worker grants the rate; `api/shared_limits.py` makes it one rate of all.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

#: API keys and "anonymous": a deployment has few. Beyond it, the clients that asked least lately begin anew.
MAX_CLIENTS = 10_000


class RateLimits:
    """Buckets by client, all alike.

    Parameters
    ----------
    rate : tokens a second
    burst : tokens of a full bucket
    most : clients in memory
    clock : seconds, monotonic
    """

    def __init__(
        self, rate: float, burst: float, most: int = MAX_CLIENTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not (rate > 0 and burst >= 1):
            raise ValueError(f"rate must be above 0 and burst at least 1, got {rate} and {burst}")
        self.rate, self.burst = rate, burst
        self._most, self._clock = most, clock
        self._paid_at: OrderedDict[str, float] = OrderedDict()
        self._spent: dict[str, int] = {}

    def allow(self, client: str, cost: int = 1) -> float:
        """Spend `cost` tokens of the client's.

        Returns
        -------
        0.0 if they are spent, else seconds until they will be there, as nothing else is spent. What costs more than a burst is allowed
        from a full bucket, and paid back before anything else is.
        """
        now = self._clock()
        paid_at = max(self._paid_at.get(client, now), now)
        wait_s = paid_at - now - (self.burst - min(cost, self.burst)) / self.rate
        if wait_s > 1e-9:  # else it is rounding
            self._paid_at.move_to_end(client)
            return wait_s
        self._set(client, paid_at + cost / self.rate)
        self._spent[client] = self._spent.get(client, 0) + cost
        return 0.0

    def give_back(self, client: str, cost: int) -> None:
        """Undo a spending that another worker has counted too; one that was told to others already stays."""
        spent = self._spent.get(client, 0)
        if spent >= cost and client in self._paid_at:
            self._spent[client] = spent - cost
            self._paid_at[client] -= cost / self.rate

    def take_spent(self) -> dict[str, int]:
        """Tokens that clients were allowed since this was last called."""
        spent, self._spent = self._spent, {}
        return spent

    def owe(self, debts_s: Mapping[str, float]) -> None:
        """Take over what clients owe altogether, in seconds until it is paid back; what was spent since `take_spent` is added."""
        now = self._clock()
        for client, debt_s in debts_s.items():
            shared = now + debt_s + self._spent.get(client, 0) / self.rate
            self._set(client, max(shared, self._paid_at.get(client, now)))

    def _set(self, client: str, paid_at: float) -> None:
        self._paid_at[client] = paid_at
        self._paid_at.move_to_end(client)
        if len(self._paid_at) > self._most:
            forgotten, _ = self._paid_at.popitem(last=False)
            self._spent.pop(forgotten, None)
