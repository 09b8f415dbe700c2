"""Evidence blocks: what one shard's users taught about the videos of one partition, packed in columns.

Flows: `agents.users` fills one block a target partition and checkpoint; `agents.items`, the only writer of those videos' rows,
applies it. Videos are named once a block, in `ids`; every column refers to them by position. Times are event times, so that
the order in which blocks arrive does not matter to what decays.
"""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from topics.ids import are_ids
from topics.interactions import EVENTS

SCHEMA_VERSION = 4
#: Width of the factor vectors; a block with another width is of another model.
FACTORS = 32

#: A kind beside those of `EVENTS`, with room for more of them: a user came to the video, which so was shown.
SHOWN = 11
#: One accepted event of a video: its kind, whether it was the pair's first positive, and when.
EVENT = np.dtype([("item", "<u4"), ("kind", "u1"), ("positive", "u1"), ("at_ms", "<i8")])
#: 64-bit words of a user's segments, one bit a bucket.
SEGMENT_WORDS = 2
#: Positives before an event that are sent with it; the models look no further back.
HISTORY = 20
#: A user's first positive of a video, with the positives before it, newest first, -1 for none, from which neighbour lists learn, and
#: with the user's segments.
LINK = np.dtype(
    [("item", "<u4"), ("history", "<i4", (HISTORY,)), ("at_ms", "<i8"), ("segments", "<u8", (SEGMENT_WORDS,))]
)
#: The summed factor steps of one video since the sender's last block.
STEP = np.dtype([("item", "<u4"), ("q", "<f4", (FACTORS,)), ("b", "<f4"), ("acc", "<f4")])


class BadBlock(ValueError):
    """A block that cannot be read; it goes to the dead letters, and the stream goes on."""


class OtherRelease(ValueError):
    """A block of another release: sound, and lost to the counts if this release passed over it."""


class Packed(msgspec.Struct, array_like=True, frozen=True):
    """A block as it travels."""

    version: int
    origin: bytes
    sender: int
    ids: list[str]
    events: bytes
    links: bytes
    steps: bytes


class EvidenceBlock(msgspec.Struct, frozen=True):
    """A block as it is used.

    `origin` names the process that learned it (a sender has already applied its own factor steps to the rows it serves from),
    `sender` its shard; `events`, `links` and `steps` are arrays of EVENT, LINK and STEP. A link is sent to the owners of all that it
    names; events and steps to the owner of their video.
    """

    origin: bytes
    sender: int
    ids: list[str]
    events: NDArray[Any]
    links: NDArray[Any]
    steps: NDArray[Any]

    def pack(self) -> bytes:
        """The block as bytes for the evidence topic."""
        return _encoder.encode(
            Packed(
                SCHEMA_VERSION,
                self.origin,
                self.sender,
                self.ids,
                self.events.tobytes(),
                self.links.tobytes(),
                self.steps.tobytes(),
            )
        )


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Packed)


def unpack(data: bytes) -> EvidenceBlock:
    """Read a block.

    Raises
    ------
    BadBlock
        The bytes are no block, or its columns disagree.
    OtherRelease
        A release with another layout wrote it.
    """
    try:
        packed = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:  # a ValueError where text is no UTF-8
        raise BadBlock(f"not an evidence block: {error}") from error
    if packed.version != SCHEMA_VERSION:
        kind = OtherRelease if packed.version > 0 else BadBlock
        raise kind(f"evidence block of version {packed.version}; this release reads {SCHEMA_VERSION}")
    try:
        events = np.frombuffer(packed.events, EVENT)
        links = np.frombuffer(packed.links, LINK)
        steps = np.frombuffer(packed.steps, STEP)
    except ValueError as error:
        raise BadBlock(f"torn column: {error}") from error
    used = [events["item"], links["item"], links["history"], steps["item"]]
    if max((int(column.max()) for column in used if len(column)), default=-1) >= len(packed.ids):
        raise BadBlock("a column refers to a video that the block does not name")
    if len(links) and links["history"].min() < -1:
        raise BadBlock("a history refers to a video by a negative position")
    if not are_ids(packed.ids):
        raise BadBlock("a video is named by what is no id")
    strange = events["kind"][(events["kind"] >= len(EVENTS)) & (events["kind"] != SHOWN)]
    if len(strange):
        raise BadBlock(f"an event of kind {strange[0]}; this release knows {len(EVENTS)}: upgrade the worker")
    return EvidenceBlock(packed.origin, packed.sender, packed.ids, events, links, steps)
