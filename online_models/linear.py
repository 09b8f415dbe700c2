"""Products of many rows with one vector, in the calling thread.

A BLAS spreads them over threads of its own and waits for the slowest: beside one busy neighbour a product of 0.1 ms was
seen to take 8 to 16 ms. These take as long as memory does, hold no interpreter lock, and give the same bits on any
number of cores.
"""

import numpy as np

from online_models.base import Float32Array, Int32Array, accepted
from online_models.kernel import f32, i32, i64, kernel, read, write


@kernel(i64, write(f32), read(f32, 2), read(f32))
def _all(out: Float32Array, matrix: Float32Array, vector: Float32Array) -> int:
    if out.shape[0] > matrix.shape[0]:
        return 1
    if vector.shape[0] != matrix.shape[1]:
        return 4
    for i in range(out.shape[0]):
        total = np.float32(0.0)
        for k in range(vector.shape[0]):
            total += matrix[i, k] * vector[k]
        out[i] = total
    return 0


@kernel(i64, write(f32), read(f32, 2), read(f32), read(i32))
def _some(out: Float32Array, matrix: Float32Array, vector: Float32Array, rows: Int32Array) -> int:
    if vector.shape[0] != matrix.shape[1] or out.shape[0] != rows.shape[0]:
        return 4
    for i in range(rows.shape[0]):
        if not 0 <= rows[i] < matrix.shape[0]:
            return 1
    for i in range(rows.shape[0]):
        row = matrix[rows[i]]
        total = np.float32(0.0)
        for k in range(vector.shape[0]):
            total += row[k] * vector[k]
        out[i] = total
    return 0


@kernel(i64, write(f32), read(f32), read(f32, 2))
def _mix(out: Float32Array, weights: Float32Array, matrix: Float32Array) -> int:
    if weights.shape[0] != matrix.shape[0] or out.shape[0] != matrix.shape[1]:
        return 4
    out[:] = np.float32(0.0)
    for f in range(weights.shape[0]):
        for i in range(out.shape[0]):
            out[i] += weights[f] * matrix[f, i]
    return 0


def dot_rows(matrix: Float32Array, vector: Float32Array, out: Float32Array, rows: Int32Array | None = None) -> None:
    """Write the products of rows with a vector into `out`.

    Parameters
    ----------
    matrix : float32, shape (n, k)
    vector : float32, shape (k,)
    out : float32, shape (m,)
    rows : int32, shape (m,); None: the first m rows

    Raises
    ------
    ModelError
        A row is out of range or a shape does not fit.
    """
    accepted(_all(out, matrix, vector) if rows is None else _some(out, matrix, vector, rows))


def weighted_sum(weights: Float32Array, matrix: Float32Array, out: Float32Array) -> None:
    """Write the sum of the rows of `matrix` (float32, shape (f, n)) by weight (float32, shape (f,)) into `out`, (n,)."""
    accepted(_mix(out, weights, matrix))
