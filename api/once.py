"""Questions that are asked twice, answered once: a list that was made twice would be logged twice, and learned from twice.

Always holds: the same question, asked again while it is among the latest, gets the same answer or the same error; the questions that
are kept are bounded.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: Second questions come 40 ms after the first: room for 12,000 a second. Of answers of 2 KB it is 1 MB, of the longest 30 MB.
MOST = 512


class Once(Generic[T]):
    """Answers by question.

    Parameters
    ----------
    most : questions that are kept
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._answers: OrderedDict[Hashable, asyncio.Task[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    async def answer(self, question: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `make` returns or raises, or did when it was asked before. Whoever goes away ends nobody else's waiting."""
        task = self._answers.get(question)
        if task is None:
            task = self._answers[question] = asyncio.create_task(make())
            # Whoever asked may be gone: nobody then looks at an error, which is no news.
            task.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception() and None)
            if len(self._answers) > self._most:
                self._answers.popitem(last=False)
        return await asyncio.shield(task)
