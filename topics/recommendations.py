"""The `recommendations` topic: each list that was served, with what was known of its videos. Key = user_id, value = MessagePack.

Written by the API behind the answer, read by the shard of the user, which joins it with what followed. `inputs` are those of the
release that wrote it: `names` says which, and a list of another release is passed over. Fields at the end may be missing: then a
release wrote it that did not have them.
"""

from typing import Any

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from topics.ids import are_ids, is_id

SCHEMA_VERSION = 1
#: Places of a list that are kept.
MAX_PLACES = 20


class BadList(ValueError):
    """A record that is no list; it is counted and passed over."""


class Recommended(msgspec.Struct, array_like=True, frozen=True):
    """A served list as it travels.

    Attributes
    ----------
    version : of this layout
    recommendation_id : of the answer
    at_ms : when it was served, by the server's clock
    source : as in the answer
    video_ids : best first, at most MAX_PLACES
    explored : positions that were given to exploration
    names : hash of the names of the inputs
    inputs : float32, one row a video; empty where only the list was logged
    arm : of the experiment that the user was in; empty for none
    first : places of the list that came before these, in the pages before
    experiment : names its definition, as `state.experiment` does; 0 for none
    """

    version: int
    recommendation_id: str
    at_ms: int
    source: str
    video_ids: list[str]
    explored: list[int]
    names: int
    inputs: bytes
    arm: str = ""
    first: int = 0
    experiment: int = 0

    def matrix(self) -> NDArray[np.float32] | None:
        """The inputs; float32, shape (n, inputs); None if they were not logged."""
        if not self.inputs:
            return None
        return np.frombuffer(self.inputs, "<f4").reshape(len(self.video_ids), -1).astype(np.float32)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Recommended)


def hash_names(names: tuple[str, ...]) -> int:
    """A number for the names of inputs, in their order; 63 bits."""
    return xxhash.xxh3_64_intdigest("\n".join(names).encode()) >> 1


def encode_list(
    recommendation_id: str,
    at_ms: int,
    source: str,
    video_ids: list[str],
    explored: list[int],
    names: int,
    inputs: NDArray[Any] | None,
    *,
    arm: str = "",
    first: int = 0,
    experiment: int = 0,
) -> bytes:
    """Encode a value; its key is `user_id.encode()`. Places behind MAX_PLACES are left out."""
    kept = video_ids[:MAX_PLACES]
    packed = b"" if inputs is None else np.ascontiguousarray(inputs[: len(kept)], "<f4").tobytes()
    places = [place for place in explored if place < len(kept)]
    return _encoder.encode(
        Recommended(
            SCHEMA_VERSION, recommendation_id, at_ms, source, kept, places, names, packed, arm, first, experiment
        )
    )


def decode_list(key: bytes | None, value: bytes | None) -> tuple[bytes, Recommended]:
    """Read a record into the user's id (UTF-8) and the list. Raises BadList."""
    try:
        listed = _decoder.decode(value or b"")
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadList(f"no list: {error}") from error
    if listed.version != SCHEMA_VERSION:
        raise BadList(f"a list of version {listed.version}; this release reads {SCHEMA_VERSION}")
    if not key or not is_id(key.decode(errors="replace")) or not are_ids(listed.video_ids):
        raise BadList("the user or a video is named by what is no id")
    n = len(listed.video_ids)
    if not 0 < n <= MAX_PLACES or len(listed.inputs) % (4 * n):
        raise BadList(f"{n} videos with {len(listed.inputs)} bytes of inputs")
    if listed.first < 0:
        raise BadList(f"{listed.first} places before the list")
    return key, listed
