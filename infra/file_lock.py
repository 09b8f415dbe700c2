"""A lock that no crash can leave behind: the kernel frees it when the last process that holds it ends.

The lock is on an open file (flock), so a child that inherits the descriptor holds it too: an embedded broker keeps
its folder locked for exactly as long as it lives, whatever becomes of the process that started it.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Self

POLL_S = 0.05


class FileLock:
    """An exclusive lock on `path`, not held until `acquire`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self, timeout_s: float = 0.0) -> bool:
        """Take the lock within `timeout_s`; False if another process, or another FileLock here, still holds it."""
        if self._fd is not None:
            raise RuntimeError(f"{self.path} is already locked by this object")
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(fd)
                    return False
                time.sleep(POLL_S)
            else:
                self._fd = fd
                return True

    @property
    def fd(self) -> int:
        """Descriptor to hand to a child, which then holds the lock as well."""
        if self._fd is None:
            raise RuntimeError(f"{self.path} is not locked")
        return self._fd

    def release(self) -> None:
        """Give up this process's hold; children that inherited it keep theirs."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
