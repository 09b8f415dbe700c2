"""A folder on any file system that fsspec reaches (`s3://bucket/prefix`, `memory://`, ...), in which files appear as wholes.

Flows in: bytes, or files that were made on this machine. Flows out: the same. Always holds: whoever reads a file finds all of it or
none, for object stores put objects as wholes, and on a disk files are renamed into their places.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class NoSuchStore(ValueError):
    """No such kind of store, or its package is not installed."""


class Folder:
    """Files below an address.

    Parameters
    ----------
    url : a folder or an fsspec URL; what it lacks is created when something is written

    Raises
    ------
    NoSuchStore
    """

    def __init__(self, url: str) -> None:
        # Only what needs it pays for the import.
        import fsspec

        self.url = url
        try:
            self.fs: Any
            self.fs, path = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            hint = " (for s3:// that is headrace[s3])" if isinstance(error, ImportError) else ""
            raise NoSuchStore(f"{url!r} cannot be used: {error}{hint}") from error
        self.root = path.rstrip("/")
        protocols = (self.fs.protocol,) if isinstance(self.fs.protocol, str) else tuple(self.fs.protocol)
        #: Whether it is on a disk.
        self.local = "file" in protocols

    def where(self, path: str) -> str:
        """Address of a file, for messages and for others to read it by."""
        return str(self.fs.unstrip_protocol(self.path(path)))

    def path(self, path: str) -> str:
        """As the file system knows it."""
        return f"{self.root}/{path}" if path else self.root

    def files(self, under: str = "") -> list[str]:
        """Paths of all files below a folder, sorted; none if it is not there."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.find(self.path(under))
        except FileNotFoundError:
            return []
        # A memory store's paths begin with a slash that its root may lack.
        start = len(self.root.lstrip("/")) + 1
        return sorted(str(each).lstrip("/")[start:] for each in found)

    def read(self, path: str) -> bytes:
        """All of a file. Raises FileNotFoundError."""
        self.fs.invalidate_cache()
        return bytes(self.fs.cat_file(self.path(path)))

    def open(self, path: str) -> Any:
        """For reading, at any place. Raises FileNotFoundError."""
        return self.fs.open(self.path(path), "rb")

    def write(self, path: str, data: bytes) -> None:
        """Write a small file; it takes the place of what was there."""
        if not self.local:
            self.fs.pipe_file(self.path(path), data)
            return
        with self._part(path) as part:
            _write(part, data)
            self._rename(part, Path(self.path(path)))

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless there is one; False if there is: of several that try, one succeeds."""
        if not self.local:
            try:
                self.fs.pipe_file(self.path(path), data, mode="create")
            except FileExistsError:
                return False
            return True
        with self._part(path) as part:
            _write(part, data)
            return self._link(part, Path(self.path(path)))

    def publish(self, source: Path, path: str, *, anew: bool = False) -> None:
        """Let a file that was made in `workspace` be there; `anew`: one that is there stays."""
        if not self.local:
            try:
                self.fs.put_file(str(source), self.path(path), mode="create" if anew else "overwrite")
            except FileExistsError:
                if not anew:
                    raise
            return
        target = Path(self.path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb+") as file:
            os.fsync(file.fileno())
        if anew:
            self._link(source, target)
        else:
            self._rename(source, target)

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        try:
            self.fs.rm_file(self.path(path))
        except FileNotFoundError:
            return

    @contextmanager
    def workspace(self, name: str) -> Iterator[Path]:
        """A folder on this machine in which files are made: in `_tmp`, where renaming is free, or anywhere."""
        if not self.local:
            with tempfile.TemporaryDirectory(prefix="headrace-") as anywhere:
                yield Path(anywhere)
            return
        folder = Path(self.path(f"_tmp/{name}"))
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            left.unlink()
        yield folder

    @contextmanager
    def _part(self, path: str) -> Iterator[Path]:
        target = Path(self.path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)

    def _rename(self, source: Path, target: Path) -> None:
        source.replace(target)
        _sync_folder(target.parent)

    def _link(self, source: Path, target: Path) -> bool:
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        _sync_folder(target.parent)
        return True


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """A name outlives a power cut once its folder is on the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
