"""Event ids for files that have none: a hash of the row's values and the event.

Equal rows get equal ids, whatever the file's format, so that a row that is there twice counts once. The ids are part
of the log: to change this function would make a second load of the same file count again.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray


def hash_numbers(columns: Sequence[NDArray[np.int64]], rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> Any:
    """Ids of events made from rows of whole numbers.

    Parameters
    ----------
    columns : int64, each of shape (rows of the file,)
    rows : int64, shape (n,); row of each event
    codes : uint8, shape (n,); what the event is

    Returns
    -------
    pyarrow.StringArray, shape (n,); 16 hexadecimal digits
    """
    matrix = np.ascontiguousarray(np.column_stack(columns), dtype="<i8")
    width = matrix.shape[1] * 8
    packed = memoryview(matrix.tobytes())
    digest = xxhash.xxh3_64_hexdigest
    starts = (rows * width).tolist()
    return pa.array(
        [digest(packed[at : at + width], seed=code) for at, code in zip(starts, codes.tolist(), strict=True)],
        type=pa.string(),
    )


def hash_event(user_id: str, video_id: str, event: str, at_ms: int, watch_s: float, duration_s: float) -> str:
    """Id of one event by its values (seconds are NaN where unknown); 16 hexadecimal digits."""
    text = "\0".join((user_id, video_id, event)).encode()
    return xxhash.xxh3_64_hexdigest(text + struct.pack("<qdd", at_ms, watch_s, duration_s))
