"""What became of requests that went through a load balancer: pure arithmetic.

Answers flow in, one a request, however many workers it took; counts and quantiles flow out. A request has failed if no worker answered
it with a success within `PATIENCE_S`, whatever the reason; one that another worker answered has not.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

#: A request that nobody has answered by then has failed.
PATIENCE_S = 5.0


class Answer(NamedTuple):
    """What became of a request.

    Attributes
    ----------
    due_ms : when it was to be sent, of the machine's clock
    took_ms : from then to the end of the answer, or until it was given up; what came late counts as waiting
    status : HTTP; 0 where nobody answered
    passed_on : why it went on to another worker, once for each time
    source : of the list; empty where it failed
    by_peer : whether the worker that owns the user was asked by the one that answered
    age_ms : how old the state was that answered, when the answer came; None where it does not say
    late_ms : of `took_ms`, until it was sent: the load generator's own fault
    """

    due_ms: float
    took_ms: float
    status: int
    passed_on: Sequence[str] = ()
    source: str = ""
    by_peer: bool = False
    age_ms: float | None = None
    late_ms: float = 0.0


def has_failed(answer: Answer) -> bool:
    """Whether no worker answered with a success in time, from when it was sent."""
    return not (200 <= answer.status < 300 and answer.took_ms - answer.late_ms <= PATIENCE_S * 1000)


def summarize(answers: Sequence[Answer]) -> dict[str, Any]:
    """Counts of all requests, times and ages of those that were answered."""
    good = [answer for answer in answers if not has_failed(answer)]
    passed_on = Counter(why for answer in answers for why in answer.passed_on)
    ages = [answer.age_ms for answer in good if answer.age_ms is not None]
    return {
        "requests": len(answers),
        "failed": len(answers) - len(good),
        "retried": sum(bool(answer.passed_on) for answer in answers),
        "retried_because": dict(sorted(passed_on.items())),
        "source": dict(sorted(Counter(answer.source for answer in good).items())),
        "by_peer": sum(answer.by_peer for answer in good),
        **_quantiles("", [answer.took_ms for answer in good]),
        **_quantiles("stale_", ages),
        "age_unknown": len(good) - len(ages),
        "sent_late_max_ms": round(max((answer.late_ms for answer in answers), default=0.0), 1),
    }


def between(answers: Iterable[Answer], begin_ms: float, end_ms: float) -> list[Answer]:
    """The requests of a stretch of time."""
    return [answer for answer in answers if begin_ms <= answer.due_ms < end_ms]


def _quantiles(name: str, values: Sequence[float]) -> dict[str, float | None]:
    def quantile(q: float) -> float | None:
        return round(float(np.quantile(values, q)), 1) if values else None

    return {f"{name}p50_ms": quantile(0.5), f"{name}p99_ms": quantile(0.99), f"{name}max_ms": quantile(1.0)}
