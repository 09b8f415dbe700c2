"""How many bytes an object keeps in memory, with all that it alone refers to."""

import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np


def attribute_bytes(owner: object, counted: set[int]) -> dict[str, int]:
    """Bytes by attribute of `owner`; what is in `counted` (ids of objects) is left out, and what is found joins it."""
    return {name: held_bytes(value, counted) for name, value in vars(owner).items()}


def held_bytes(value: Any, counted: set[int]) -> int:
    """Bytes of `value` and of what it holds: containers, records and array buffers; compiled objects count as their shell.

    Parameters
    ----------
    counted : ids of objects that were counted before; grows
    """
    total = 0
    todo = [value]
    while todo:
        held = todo.pop()
        if id(held) in counted or held is None or isinstance(held, type) or callable(held):
            continue
        counted.add(id(held))
        total += sys.getsizeof(held)
        if isinstance(held, np.ndarray):
            # An array that owns its data has it in its size; a view's data is its base's.
            if held.base is not None:
                todo.append(held.base)
        elif isinstance(held, Mapping):
            todo += [*held.keys(), *held.values()]
        elif isinstance(held, list | tuple | set | frozenset):
            todo += held
        elif isinstance(held, msgspec.Struct):
            todo += [getattr(held, name) for name in held.__struct_fields__]
        elif hasattr(held, "__dict__"):
            todo.append(vars(held))
    return total
