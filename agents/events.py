"""Events of a micro-batch as the agents hand them on."""

from typing import NamedTuple

from state.types import Float64Array, Int32Array, Int64Array, UInt8Array, UInt64Array


class Events(NamedTuple):
    """Events of one shard whose users and videos have their places in memory, in order.

    Attributes
    ----------
    offsets, at_ms : int64, shape (m,)
    slots, rows : int32, shape (m,); the user's slot, held by the shard, and the video's row
    kinds : uint8, shape (m,); positions in `EVENTS`
    event_ids : uint64, shape (m,); hashes
    watch_seconds, duration_seconds : float64, shape (m,); NaN where unknown
    arrived_ms : int64, shape (m,); when the log had them, by the broker's clock
    """

    offsets: Int64Array
    slots: Int32Array
    rows: Int32Array
    kinds: UInt8Array
    at_ms: Int64Array
    event_ids: UInt64Array
    watch_seconds: Float64Array
    duration_seconds: Float64Array
    arrived_ms: Int64Array
