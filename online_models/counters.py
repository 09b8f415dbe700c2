"""Random numbers as a pure function of a seed and a counter, so that no draw depends on the order of others.

SplitMix64's finaliser (Steele et al. 2014) over 64-bit counters; normal deviates by Box and Muller.
"""

import numpy as np

from online_models.base import FACTORS, Float32Array, Float64Array, Int64Array, UInt64Array

GAMMA = 0x9E3779B97F4A7C15
"""SplitMix64's increment: spreads neighbouring counters over all 64 bits."""

FIRST_SCALE = 0.03
"""Standard deviation of a new item's vector: small against what learning makes; learning could not leave 0."""


def mix64(counters: UInt64Array) -> UInt64Array:
    """Map uint64 counters, any shape, one to one to uint64 values that look random."""
    z = counters + np.uint64(GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def in_partition(partition: int, numbers: Int64Array) -> UInt64Array:
    """Counters for places or numbers (int64, shape (m,)) of a partition's log: no two partitions share one."""
    return (np.uint64(partition) << np.uint64(40)) + numbers.astype(np.uint64)


def seed_key(seed: int) -> int:
    """Spread a seed, any integer, over 64 bits, so that neighbouring seeds share nothing."""
    return int(mix64(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))[0])


def uniforms(seed: int, counters: UInt64Array) -> Float64Array:
    """Draw float64 in (0, 1), one a counter, same shape."""
    return ((mix64(mix64(counters) ^ np.uint64(seed_key(seed))) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def initial_vector(seed: int, ids: UInt64Array) -> Float32Array:
    """First vectors of items, the same in every worker and at every time.

    Parameters
    ----------
    seed : of the deployment
    ids : uint64, shape (m,); the items' 64-bit hashes

    Returns
    -------
    float32, shape (m, 32); normal, mean 0, standard deviation 0.03
    """
    half = FACTORS // 2
    places = np.add(mix64(np.asarray(ids, np.uint64))[:, None], np.arange(FACTORS, dtype=np.uint64), dtype=np.uint64)
    drawn = uniforms(seed, places)
    radius = FIRST_SCALE * np.sqrt(-2.0 * np.log(drawn[:, :half]))
    angle = 2.0 * np.pi * drawn[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
