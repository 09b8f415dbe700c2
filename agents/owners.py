"""Which worker owns a shard, and where it answers.

Flows in: what Faust's assignor hands to every member of the group with its assignment: the URL of each member (the one that it
advertises, Faust's `canonical_url`) and its partitions of each topic. Flows out: a URL, or None. It needs no topic and no request of
its own, is there before a worker has recovered anything, and is as new as the group's latest generation. Always holds: it is what was
last said, and no promise. Between two generations owners have let go, or do not know yet, so whoever is asked says whether it owns.

Faust's own router, over the same data, forwards requests without their bodies.
"""

from collections.abc import Callable, Mapping, Sequence

#: Partitions by topic, by URL.
Distribution = Mapping[str, Mapping[str, Sequence[int]]]


class Owners:
    """Looks owners up.

    Parameters
    ----------
    distribution : the assignor's latest; another object whenever it has changed
    topic : whose partitions are the shards
    own_url : of this worker, which is no peer of itself
    """

    def __init__(self, distribution: Callable[[], Distribution], topic: str, own_url: str) -> None:
        self._distribution, self._topic, self._own_url = distribution, topic, own_url
        self._seen: Distribution | None = None
        self._urls: dict[int, str] = {}

    def others(self) -> frozenset[str]:
        """URLs of the other workers of the group."""
        return frozenset(self._distribution()) - {self._own_url}

    def url_of(self, partition: int) -> str | None:
        """The URL of the other worker that owns the shard; None where nobody is known to, or this one is."""
        latest = self._distribution()
        if latest is not self._seen:
            self._urls = {
                each: url
                for url, topics in latest.items()
                if url != self._own_url
                for each in topics.get(self._topic, ())
            }
            self._seen = latest
        return self._urls.get(partition)
