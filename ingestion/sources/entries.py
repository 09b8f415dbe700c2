"""What `videos` or `users` hold now, as far as a source must know it: to send nothing that is there already, and to miss what is gone.

Committed records flow in; for each id the hash of its value and whether this source wrote it flow out. Memory: about 200 bytes an id,
of as many as the catalogue has.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import xxhash

from ingestion.sources.rows import Record
from ingestion.sources.settled import SettledLog
from ingestion.sources.writer import SOURCE_HEADER


class _Known(NamedTuple):
    digest: int
    ours: bool


class KnownEntries:
    """The entries of one topic; `close` it.

    Parameters
    ----------
    bootstrap : broker addresses
    topic : `videos` or `users`
    name : of the source
    """

    def __init__(self, bootstrap: str, topic: str, name: str) -> None:
        self._log = SettledLog(bootstrap, topic)
        self._name = name.encode()
        self._entries: dict[bytes, _Known] = {}

    def refresh(self) -> None:
        """Read what was committed since the last call. Raises TopicsUnavailable."""
        for message in self._log.advance():
            key, value = message.key() or b"", message.value()
            if value is None:
                self._entries.pop(key, None)
                continue
            ours = (SOURCE_HEADER, self._name) in (message.headers() or ())
            self._entries[key] = _Known(xxhash.xxh3_64_intdigest(value), ours)

    def has(self, key: bytes, value: bytes | None) -> bool:
        """Whether the topic says this of the key already; a key that it does not know is deleted already."""
        known = self._entries.get(key)
        if known is None or value is None:
            return known is None and value is None
        return known.digest == xxhash.xxh3_64_intdigest(value)

    def note(self, records: Iterable[Record]) -> None:
        """Take in what this source has just committed."""
        for record in records:
            if record.value is None:
                self._entries.pop(record.key, None)
            else:
                self._entries[record.key] = _Known(xxhash.xxh3_64_intdigest(record.value), True)

    def ours(self) -> Iterator[bytes]:
        """Keys whose last record this source wrote."""
        return (key for key, known in self._entries.items() if known.ours)

    def close(self) -> None:
        """Close the consumer."""
        self._log.close()
