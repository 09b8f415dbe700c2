"""How this package compiles a loop: one decorator and the array types of its signatures.

Every kernel states its argument types, so that a wrong dtype is a `TypeError` at the call instead of a second
compilation and a silent conversion; inputs are declared read-only, which also admits arrays over a received message's
bytes. Compiled code is cached beside the source. numba's cache sees changes of the kernel's own file only: a kernel
must therefore call no compiled function of another file.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba import types

F = TypeVar("F", bound=Callable[..., Any])

void, boolean, f32, f64, i8, i32, i64, u16, u64 = (
    types.void,
    types.boolean,
    types.float32,
    types.float64,
    types.int8,
    types.int32,
    types.int64,
    types.uint16,
    types.uint64,
)
"""Scalar types of signatures."""

# Sums may be reordered, which is what lets them use vector instructions. NaN and infinity keep their meaning: a NaN
# score must be seen and counted, and "assume no NaN" would compile that check away. So does reordering with `np.isfinite` of a
# value computed in the kernel (it is `x - x == 0`): write `abs(x) < np.inf` there. Of values read from an array it is right.
_FASTMATH = {"reassoc", "contract", "nsz"}


def read(dtype: Any, ndim: int = 1) -> Any:
    """Type of a C-contiguous array that the kernel only reads."""
    return types.Array(dtype, ndim, "C", readonly=True)


def write(dtype: Any, ndim: int = 1) -> Any:
    """Type of a C-contiguous array that the kernel changes."""
    return types.Array(dtype, ndim, "C")


def kernel(returns: Any, *arguments: Any) -> Callable[[F], F]:
    """Compile a function for exactly these types, without the interpreter lock, and keep it on disk.

    Parameters
    ----------
    returns : numba type of the result
    arguments : numba types of the arguments, in order; see `read` and `write`
    """
    compiled = numba.njit(returns(*arguments), cache=True, nogil=True, error_model="numpy", fastmath=_FASTMATH)
    return cast("Callable[[F], F]", compiled)


def part(function: F) -> F:
    """Compile a function that kernels of the same file share, into each of them."""
    return cast("F", numba.njit(inline="always", error_model="numpy", fastmath=_FASTMATH)(function))
