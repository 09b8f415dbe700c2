"""Vectors that videos bring along, in the space of content vectors.

In: a vector of any model, as signed bytes. Out: a unit vector of 256 dimensions, with nearly the same cosines (Achlioptas,
"Database-friendly random projections", JCSS 2003: an error of about 1 / sqrt(256)). The projection's signs are raw bits of a generator
whose stream never changes, so a replay of years to come makes the same vectors.
"""

import functools

import numpy as np

from online_models.base import Float32Array

DIMENSIONS = 256
#: Of the signs; another one would make the vectors of old and new videos strangers to each other.
SEED = 0x68656164


@functools.lru_cache(maxsize=4)
def _signs(dimensions: int) -> Float32Array:
    """Float32, shape (dimensions, 256); 1 or -1. What two lengths have in common is the same."""
    words = np.random.PCG64(SEED).random_raw(dimensions * DIMENSIONS // 64)
    bits = np.unpackbits(words.astype("<u8").view(np.uint8))
    signs: Float32Array = (bits.reshape(dimensions, DIMENSIONS).astype(np.float32) * 2.0) - 1.0
    return signs


def projected(embedding: bytes) -> Float32Array:
    """Project an embedding (signed bytes); float32, shape (256,), of length 1, or 0 for one of zeros."""
    vector = np.frombuffer(embedding, np.int8).astype(np.float32)
    out: Float32Array = vector @ _signs(len(vector))
    length = float(np.linalg.norm(out))
    return out / np.float32(length) if length else out
