"""Dead letters: records that could not be processed, kept in `interactions.dead` with the reason.

Key and value are the original bytes, untouched, so that a mended consumer can be fed from them; everything else is
in headers. Only an original larger than `MAX_ORIGINAL_BYTES` is cut, and says so.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from topics.rejected import Rejected

MAX_ORIGINAL_BYTES: Final = 1_000_000
"""A compressed batch may hold a record far larger than a producer may send: uncut, it would stop its partition."""
MAX_REQUEST_BYTES: Final = 2_200_000
"""What a producer of dead letters must allow (`max_request_size`): key and value, both at their limit, and headers."""

_PREFIX = "headrace."


class DeadLetter(NamedTuple):
    """A refused record and why.

    Attributes
    ----------
    key, value : the original bytes
    reason : a `topics.rejected.Reason`, or another consumer's word
    topic, partition, offset : where the original lies
    original_bytes : size of the original key and value; larger than they are now only if they were cut
    """

    key: bytes | None
    value: bytes | None
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    original_bytes: int

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """Record headers that carry everything but key and value."""
        fields = ("reason", "detail", "topic", "partition", "offset", "original_bytes")
        # "replace": a detail may quote a lone surrogate, and a dead letter must never fail to be written
        return [(_PREFIX + name, str(getattr(self, name)).encode(errors="replace")) for name in fields]


def dead_letter(
    key: bytes | None, value: bytes | None, why: Rejected, *, topic: str, partition: int, offset: int
) -> DeadLetter:
    """Build the dead letter of a record at `topic`, `partition`, `offset` that was refused with `why`."""
    return DeadLetter(
        key if key is None else key[:MAX_ORIGINAL_BYTES],
        value if value is None else value[:MAX_ORIGINAL_BYTES],
        str(why.reason),
        why.detail,
        topic,
        partition,
        offset,
        len(key or b"") + len(value or b""),
    )


def parse_dead_letter(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] | None
) -> DeadLetter:
    """Read a record of the dead letter topic back; `ValueError` names a header that is missing or no number."""
    found = {name.removeprefix(_PREFIX): text for name, text in headers or () if name.startswith(_PREFIX)}

    def text_of(name: str) -> str:
        text = found.get(name)
        if text is None:
            raise ValueError(f"no dead letter: header {_PREFIX}{name} is missing")
        return text.decode()

    def number_of(name: str) -> int:
        try:
            return int(text_of(name))
        except ValueError as error:
            raise ValueError(f"no dead letter: header {_PREFIX}{name}: {error}") from None

    return DeadLetter(
        key,
        value,
        text_of("reason"),
        text_of("detail"),
        text_of("topic"),
        number_of("partition"),
        number_of("offset"),
        number_of("original_bytes"),
    )
