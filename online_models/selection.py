"""The largest of many scores, as marks: how candidates of several sources become one set without sorting any.

In: scores of all rows. Out: marks at the best allowed ones. A heap of the best so far is passed over once: most scores cost one
comparison.
"""

import numpy as np

from online_models.base import BoolArray, Float32Array, Int32Array, accepted
from online_models.kernel import boolean, f32, f64, i32, i64, kernel, part, read, write


@part
def _is_worse(scores: Float32Array, row: int, other: int) -> bool:
    return bool(scores[row] < scores[other] or (scores[row] == scores[other] and row > other))


@kernel(i64, write(boolean), read(f32), read(boolean), i64, f64)
def _mark_largest(marks: BoolArray, scores: Float32Array, allowed: BoolArray, n: int, above: float) -> int:
    if not marks.shape[0] == scores.shape[0] == allowed.shape[0]:
        return 4
    n = min(n, scores.shape[0])
    if n <= 0:
        return 0
    rows = np.empty(n, np.int64)
    held = 0
    least = np.float32(above)
    for i in range(scores.shape[0]):
        score = scores[i]
        # Written so that NaN is no better than anything. Of equal scores the row that is known longer stays.
        if not score > least or not allowed[i] or score == np.inf:
            continue
        # The worst is at the root: the least score, of equal ones the latest row.
        if held < n:
            at = held
            held += 1
            while at > 0:
                up = (at - 1) >> 1
                if not _is_worse(scores, i, rows[up]):
                    break
                rows[at] = rows[up]
                at = up
            rows[at] = i
        else:
            at = 0
            while True:
                down = 2 * at + 1
                if down >= n:
                    break
                other = down + 1
                if other < n and _is_worse(scores, rows[other], rows[down]):
                    down = other
                if not _is_worse(scores, rows[down], i):
                    break
                rows[at] = rows[down]
                at = down
            rows[at] = i
        if held == n:
            least = scores[rows[0]]
    for at in range(held):
        marks[rows[at]] = True
    return 0


@kernel(i64, write(boolean), read(i32), read(boolean), i64)
def _mark_first(marks: BoolArray, rows: Int32Array, allowed: BoolArray, n: int) -> int:
    if marks.shape[0] != allowed.shape[0]:
        return 4
    found = 0
    for place in range(rows.shape[0]):
        if found >= n:
            break
        row = rows[place]
        if 0 <= row < allowed.shape[0] and allowed[row]:
            marks[row] = True
            found += 1
    return 0


def mark_largest(
    marks: BoolArray, scores: Float32Array, allowed: BoolArray, n: int, above: float = -float("inf")
) -> None:
    """Set the marks of the `n` largest finite scores of allowed rows.

    Parameters
    ----------
    marks : bool, shape (m,); changed in place
    scores : float32, shape (m,)
    allowed : bool, shape (m,)
    above : scores that are not larger than this are none

    Raises
    ------
    ModelError
        The arrays differ in length.
    """
    accepted(_mark_largest(marks, scores, allowed, n, above))


def mark_first(marks: BoolArray, rows: Int32Array, allowed: BoolArray, n: int) -> None:
    """Set the marks of the first `n` allowed ones of `rows` (int32, in order); rows out of range are passed over."""
    accepted(_mark_first(marks, rows, allowed, n))
