"""Where snapshots are kept: a folder, or any store that fsspec reaches (`s3://bucket/prefix`, `memory://`, ...).

Below the address each app has a folder, in it each snapshot one, and `promoted.json`. Flows in: files of a snapshot, then its
manifest. Flows out: the same, compared with their checksums. Always holds: a folder without a manifest is no snapshot; the manifest
is written last and removed first, so a snapshot is there as a whole, or not at all.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Annotated, Literal

import msgspec
import xxhash

from infra.folder import Folder, NoSuchStore
from state.snapshot import (
    MANIFEST,
    Manifest,
    PackedFile,
    SnapshotCorrupt,
    SnapshotError,
    SnapshotName,
    check_name,
    decode_manifest,
    encode_manifest,
)

PROMOTED = "promoted.json"
#: Marks a folder that is being filled, and by whom: what a save that was killed has left is known by it.
SAVING = "saving.json"
#: A mark of another machine counts as left behind after so long: nobody there can be asked. Longer than any save takes.
ABANDONED_S = 24 * 3600.0
#: Read and hashed at once.
CHUNK_BYTES = 1 << 20
#: Promotions that are remembered.
HISTORY = 100

_Version = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,60}\Z")]


class Promotion(msgspec.Struct, frozen=True):
    """That a snapshot was promoted, when, and the version that serves it: its own, or the one that it was imported as."""

    name: SnapshotName
    version: _Version
    at_ms: int


class Promotions(msgspec.Struct, frozen=True):
    """All promotions that were not rolled back, the latest last."""

    history: list[Promotion] = []
    format: Literal[1] = 1

    @property
    def current(self) -> Promotion | None:
        """The one that counts."""
        return self.history[-1] if self.history else None

    def having(self, promotion: Promotion) -> "Promotions":
        """With one more."""
        return Promotions([*self.history, promotion][-HISTORY:])

    def without(self, name: str) -> "Promotions":
        """Without a snapshot that is removed."""
        return Promotions([each for each in self.history if each.name != name])


class SnapshotStore:
    """The snapshots of an app.

    Parameters
    ----------
    url : a folder or an fsspec URL; what it lacks is created when something is saved

    Raises
    ------
    SnapshotError
        No such kind of store, or its package is not installed.
    """

    def __init__(self, url: str, app: str) -> None:
        self.url = url
        try:
            self._folder = Folder(url)
        except NoSuchStore as error:
            raise SnapshotError(f"HEADRACE_SNAPSHOTS={error}") from error
        self._fs, self._app = self._folder.fs, app
        self._root = self._folder.path(app)

    def where(self, name: str, file: str = MANIFEST) -> str:
        """Address of a file, for messages."""
        return str(self._fs.unstrip_protocol(f"{self._root}/{name}/{file}"))

    def names(self) -> list[str]:
        """All snapshots that are complete, in the order of their names."""
        return [name for name in self._folders() if self._fs.exists(f"{self._root}/{name}/{MANIFEST}")]

    def manifest(self, name: str) -> Manifest:
        """What a snapshot is. Raises SnapshotError if there is none, SnapshotCorrupt."""
        self._fs.invalidate_cache()
        where = self.where(check_name(name))
        try:
            manifest = decode_manifest(self._fs.cat_file(f"{self._root}/{name}/{MANIFEST}"), where)
        except FileNotFoundError as error:
            there = ", ".join(self.names()) or "none"
            raise SnapshotError(f"there is no snapshot {name} in {self.url}: there are {there}") from error
        if manifest.name != name:
            raise SnapshotCorrupt(f"{where} is of another snapshot, {manifest.name}: remove the folder")
        return manifest

    def listed(self) -> list[Manifest | SnapshotError]:
        """All snapshots, the oldest first; behind them, why one cannot be read."""
        found: list[Manifest] = []
        broken: list[SnapshotError] = []
        for name in self.names():
            try:
                found.append(self.manifest(name))
            except SnapshotError as error:
                broken.append(error)
        return [*sorted(found, key=lambda each: each.created_ms), *broken]

    def latest(self, version: str) -> Manifest:
        """The latest snapshot of a version that can be read. Raises SnapshotError."""
        of_version = [each for each in self.listed() if isinstance(each, Manifest) and each.version == version]
        if not of_version:
            raise SnapshotError(f"there is no snapshot of version {version} in {self.url}: `headrace models save`")
        return of_version[-1]

    def begin(self, name: str) -> str:
        """Begin to fill a new snapshot, called `name` or, where that is taken, something like it; returns its name."""
        self._fs.invalidate_cache()
        taken = set(self._folders())
        name = next(each for n in range(1, 10_000) if (each := name if n == 1 else f"{name}-{n}") not in taken)
        mark = {"host": socket.gethostname(), "pid": os.getpid(), "at_s": time.time()}
        self._write(f"{name}/{SAVING}", json.dumps(mark).encode())
        return name

    def put(self, name: str, file: str, source: Path) -> tuple[int, str]:
        """Copy a file into a snapshot that is being filled; returns its size in bytes and its checksum."""
        with source.open("rb") as read, self._fs.open(f"{self._root}/{name}/{file}", "wb") as write:
            return _copied(read, write.write)

    def finish(self, manifest: Manifest) -> None:
        """Make a snapshot be there, now that all its files are."""
        self._write(f"{manifest.name}/{MANIFEST}", encode_manifest(manifest))
        self._fs.rm_file(f"{self._root}/{manifest.name}/{SAVING}")

    def fetch(self, manifest: Manifest, file: PackedFile, target: Path) -> None:
        """Copy a file of a snapshot to `target`. Raises SnapshotCorrupt, naming the file, if it is not as it was saved."""
        with target.open("wb") as write:
            self._compare(manifest, file, write.write)

    def verify(self, manifest: Manifest) -> None:
        """Read all files of a snapshot. Raises SnapshotCorrupt, naming the first that is not as it was saved."""
        for file in manifest.files:
            self._compare(manifest, file, lambda _: None)

    def _compare(self, manifest: Manifest, file: PackedFile, write: Callable[[bytes], object]) -> None:
        where = self.where(manifest.name, file.name)
        advice = f"remove snapshot {manifest.name}, and save another"
        try:
            with self._fs.open(f"{self._root}/{manifest.name}/{file.name}", "rb") as read:
                size_bytes, checksum = _copied(read, write)
        except FileNotFoundError as error:
            raise SnapshotCorrupt(f"{where} is missing: {advice}") from error
        if size_bytes != file.size_bytes:
            raise SnapshotCorrupt(f"{where} has {size_bytes:,} bytes, {file.size_bytes:,} were saved: {advice}")
        if checksum != file.checksum:
            raise SnapshotCorrupt(f"{where} is not as it was saved (checksum): {advice}")

    def remove(self, name: str) -> None:
        """Remove a snapshot, or what is left of one."""
        folder = f"{self._root}/{check_name(name)}"
        if self._fs.exists(f"{folder}/{MANIFEST}"):
            self._fs.rm_file(f"{folder}/{MANIFEST}")
        if self._fs.exists(folder):
            self._fs.rm(folder, recursive=True)

    def sweep(self) -> list[str]:
        """Remove what saves that were killed have left; returns the names."""
        self._fs.invalidate_cache()
        complete = set(self.names())
        left = [name for name in self._folders() if name not in complete and self._is_abandoned(name)]
        for name in left:
            self.remove(name)
        return left

    def promotions(self) -> Promotions:
        """What was promoted. Raises SnapshotCorrupt."""
        self._fs.invalidate_cache()
        path = f"{self._root}/{PROMOTED}"
        try:
            return msgspec.json.decode(self._fs.cat_file(path), type=Promotions)
        except FileNotFoundError:
            return Promotions()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            where = self._fs.unstrip_protocol(path)
            raise SnapshotCorrupt(f"{where} cannot be read ({error}): remove it, and promote again") from error

    def write_promotions(self, promotions: Promotions) -> None:
        """Record what is promoted; it takes the place of what was there as a whole."""
        self._write(PROMOTED, msgspec.json.format(msgspec.json.encode(promotions), indent=2))

    def resolve(self, name: str, version: str) -> Manifest:
        """The snapshot that is called so: by its name, or `promoted`, or the `latest` of a version. Raises SnapshotError."""
        if name == "latest":
            return self.latest(version)
        if name != "promoted":
            return self.manifest(name)
        current = self.promotions().current
        if current is None:
            raise SnapshotError(f"nothing is promoted in {self.url}: `headrace models promote NAME`")
        return self.manifest(current.name)

    def _folders(self) -> list[str]:
        try:
            found = self._fs.ls(self._root, detail=True)
        except FileNotFoundError:
            return []
        names = [str(each["name"]).rstrip("/").rpartition("/")[2] for each in found if each["type"] == "directory"]
        return sorted(names)

    def _is_abandoned(self, name: str) -> bool:
        """Whether nobody fills the folder: there is no mark, or its process is gone, or it is old."""
        try:
            mark = json.loads(self._fs.cat_file(f"{self._root}/{name}/{SAVING}"))
            host, pid, at_s = str(mark["host"]), int(mark["pid"]), float(mark["at_s"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return True
        if time.time() - at_s > ABANDONED_S:
            return True
        return host == socket.gethostname() and not _is_alive(pid)

    def _write(self, path: str, data: bytes) -> None:
        """Write a small file as a whole."""
        self._folder.write(f"{self._app}/{path}", data)


def _copied(read: IO[bytes], write: Callable[[bytes], object]) -> tuple[int, str]:
    """Hand over what is read, chunk by chunk; returns its size in bytes and its checksum."""
    hashed, size_bytes = xxhash.xxh3_128(), 0
    while chunk := read.read(CHUNK_BYTES):
        hashed.update(chunk)
        write(chunk)
        size_bytes += len(chunk)
    return size_bytes, hashed.hexdigest()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
