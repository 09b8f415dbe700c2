"""A graph index (HNSW) over item factors, for the videos with the largest `b + q . z`.

Flows in: rows whose vectors changed. Flows out: candidates, to be scored again with current vectors. Maximum inner product is
no metric, so vectors are lifted to `[q, b, sqrt(M^2 - |q|^2 - b^2)]` and queried with `[z, 1, 0]` (Bachrach et al. 2014): then
the order by inner product is the order by distance, exactly. M is the largest norm with headroom; a vector that outgrows it
rebuilds the index. Always holds: a removed row is never returned.
"""

from collections.abc import Iterable
from threading import Lock

import hnswlib
import numpy as np

from state.types import AnyArray, Float32Array, Int32Array

#: Graph degree and build effort: updates at 0.3 to 0.9 ms, recall@100 of 0.999 at SEARCH_EFFORT.
DEGREE = 16
BUILD_EFFORT = 100
SEARCH_EFFORT = 200
#: A row is updated when its vector moved by this share of its length; smaller drift costs less recall than updates cost time.
DRIFT = 0.05
#: M over the largest norm at the last rebuild.
HEADROOM = 1.5


class ItemIndex:
    """HNSW over rows of the replica.

    Parameters
    ----------
    k : width of the factors
    capacity : the largest number of rows
    """

    def __init__(self, k: int, capacity: int) -> None:
        self.k = k
        self.capacity = capacity
        self._lock = Lock()
        #: Marked by the loop, taken by the thread that refreshes: each touches the two sets by atomic operations only.
        self._dirty: set[int] = set()
        self._removed: set[int] = set()
        self._size = 0
        self._begin(1.0, 1024)

    def _begin(self, norm: float, size: int) -> None:
        index = hnswlib.Index(space="ip", dim=self.k + 2)
        index.init_index(
            max_elements=size, M=DEGREE, ef_construction=BUILD_EFFORT, random_seed=1, allow_replace_deleted=False
        )
        index.set_ef(SEARCH_EFFORT)
        index.set_num_threads(1)
        self._index = index
        self._norm = norm
        self._size = size
        self._held: dict[int, Float32Array] = {}
        self._gone: set[int] = set()

    def __len__(self) -> int:
        """Rows that a search can return."""
        return len(self._held) - len(self._gone)

    @property
    def waiting(self) -> int:
        """Rows whose change is not in the graph yet."""
        return len(self._dirty)

    def mark(self, rows: Int32Array) -> None:
        """These rows changed or are new; `refresh` will take them in."""
        marked = rows.tolist()
        self._removed.difference_update(marked)
        self._dirty.update(marked)

    def remove(self, rows: Iterable[int]) -> None:
        """These rows may not be returned any more; at once."""
        removed = set(rows)
        if not removed:
            return
        # A refresh may hold some of them already, and is to leave them out.
        self._removed |= removed
        self._dirty -= removed
        with self._lock:
            for row in removed:
                if row in self._held and row not in self._gone:
                    self._index.mark_deleted(row)
                    self._gone.add(row)

    def refresh(self, q: Float32Array, b: Float32Array, limit: int = 1000) -> int:
        """Take in up to `limit` marked rows, most of them only if they drifted.

        Parameters
        ----------
        q, b : float32, shapes (n, k) and (n,); the factors by row

        Returns
        -------
        How many rows were written to the graph.
        """
        rows = np.array(self._take(limit), np.int64)
        if not len(rows):
            return 0
        vectors = np.concatenate([q[rows], b[rows, None]], axis=1).astype(np.float32)
        sound = np.isfinite(vectors).all(axis=1)
        rows, vectors = rows[sound], vectors[sound]
        with self._lock:
            moved = np.array(
                [
                    row not in self._removed and self._moved(row, vector)
                    for row, vector in zip(rows.tolist(), vectors, strict=True)
                ],
                np.bool_,
            )
            rows, vectors = rows[moved], vectors[moved]
            if not len(rows):
                return 0
            largest = float(np.sqrt((vectors**2).sum(axis=1)).max())
            if largest > self._norm:
                self._rebuild(largest * HEADROOM)
            self._insert(rows, vectors)
            return len(rows)

    def _take(self, limit: int) -> list[int]:
        batch: list[int] = []
        while len(batch) < limit:
            try:
                batch.append(self._dirty.pop())
            except KeyError:
                # Not asked for by length: a removal may empty the set between the question and the answer.
                break
        return batch

    def _moved(self, row: int, vector: Float32Array) -> bool:
        held = self._held.get(row)
        if held is None or row in self._gone:
            return True
        return float(np.linalg.norm(vector - held)) > DRIFT * float(np.linalg.norm(held))

    def _rebuild(self, norm: float) -> None:
        kept = {row: vector for row, vector in self._held.items() if row not in self._gone}
        self._begin(norm, self._size)
        if kept:
            self._insert(np.array(list(kept), np.int64), np.stack(list(kept.values())))

    def _insert(self, rows: AnyArray, vectors: Float32Array) -> None:
        while len(self._held) + len(rows) > self._size:
            self._size *= 2
            self._index.resize_index(self._size)
        for row in self._gone.intersection(rows.tolist()):
            self._index.unmark_deleted(row)
            self._gone.discard(row)
        lift = np.sqrt(np.maximum(self._norm**2 - (vectors**2).sum(axis=1), 0.0))
        self._index.add_items(np.concatenate([vectors, lift[:, None]], axis=1), rows, num_threads=1)
        for row, vector in zip(rows.tolist(), vectors, strict=True):
            self._held[row] = vector

    def search(self, z: Float32Array, n: int) -> Int32Array:
        """Rows with about the largest `b + q . z`, best first; fewer than `n` where the index holds fewer.

        Parameters
        ----------
        z : float32, shape (k,)
        """
        query = np.concatenate([z, [1.0, 0.0]]).astype(np.float32)
        with self._lock:
            n = min(n, len(self))
            if n <= 0 or not np.isfinite(query).all():
                return np.empty(0, np.int32)
            self._index.set_ef(max(SEARCH_EFFORT, n))
            while n:
                try:
                    found, _ = self._index.knn_query(query, k=n, num_threads=1)
                    return np.asarray(found[0], np.int32)
                except RuntimeError:
                    # Among ties the graph falls into parts, and a walk may reach fewer than `n`: hnswlib then gives none.
                    n //= 2
        return np.empty(0, np.int32)
