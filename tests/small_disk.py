"""A disk of a few megabytes that fills up, for as long as a test runs."""

import shutil
import subprocess
from pathlib import Path
from types import TracebackType


class SmallDisk:
    """A tmpfs on a folder; only root may mount one.

    Parameters
    ----------
    path : where to mount it; must exist
    megabytes : its size until `grow`
    """

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        self._megabytes = megabytes

    def __enter__(self) -> "SmallDisk":
        _run("mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "none", str(self.path))
        return self

    def grow(self) -> None:
        """Make room."""
        _run("mount", "-o", f"remount,size={self._megabytes + 200}m", str(self.path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Lazily: a store that could not be closed still has files open.
        _run("umount", "-l", str(self.path))


def _run(command: str, *arguments: str) -> None:
    subprocess.run([shutil.which(command) or command, *arguments], check=True)
