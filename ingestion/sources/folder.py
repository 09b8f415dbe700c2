"""A folder into which others put files: every row is taken once, also from files that grow.

Position: one a file, by its name in the folder: how far it is read, and what it looked like. Always holds: a file that is moved or
copied under a new name is not taken again; one that was appended to is read on; one with other content under an old name is a new
file. Files whose names begin with a dot or end in .tmp, .part or .swp are passed over until they have their final name.
"""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import xxhash

from ingestion.bad_file import BadFile
from ingestion.columns import has_suffix
from ingestion.sources.batch import Batch, Positions, Row, SourceError, Unreadable
from ingestion.sources.file_rows import SUFFIXES, grows, rows_from
from topics.rejected import Reason, Rejected

log = structlog.get_logger(__name__)

BATCH_ROWS: Final = 1_000
#: A file that nobody has written to for this long is finished.
SETTLED_S: Final = 2.0
#: Bytes before the place that was read to, by which it is known again.
_MARK_BYTES: Final = 65_536
_PASSED_OVER: Final = (".tmp", ".part", ".swp")


class _Place(msgspec.Struct, frozen=True):
    """How far a file is read.

    Attributes
    ----------
    at : place behind the last row taken: bytes, or rows of Parquet
    mark : hash of what stands before it
    size_bytes, modified_ns : of the file when it was last read; with `whole` nothing is left to read
    digest, first_bytes : hash of the file when it was first seen, and its size then
    inode : by which a moved file is known
    """

    at: int
    mark: str
    size_bytes: int
    modified_ns: int
    whole: bool
    digest: str
    first_bytes: int
    inode: int


class FolderSource:
    """Files of one kind in a folder and those below it.

    Parameters
    ----------
    folder : must exist
    pattern : of names
    settled_s : a file that has not changed for so long is finished
    """

    def __init__(
        self, folder: Path, pattern: str = "*", *, settled_s: float = SETTLED_S, batch_rows: int = BATCH_ROWS
    ) -> None:
        if not folder.is_dir():
            raise SourceError(f"{folder} is no folder")
        self._folder, self._pattern = folder, pattern
        self._settled_s, self._batch_rows = settled_s, batch_rows

    @property
    def identity(self) -> Mapping[str, str]:
        """Where it is, and which files of it."""
        return {"folder": str(self._folder.resolve()), "pattern": self._pattern}

    def batches(self, positions: Positions) -> Iterator[Batch]:
        """What is new in all files, the oldest first."""
        places = {name: msgspec.convert(place, _Place) for name, place in positions.items()}
        for name, path in self._files():
            try:
                yield from self._file(name, path, places)
            except FileNotFoundError:
                continue  # moved away meanwhile: its new name comes next time

    def present(self) -> Iterator[Row]:
        """Files tell what came, and not what is."""
        raise SourceError(
            "a folder does not say what is gone: put a row with a true column named by --deleted into a file"
        )

    def wait(self, seconds: float) -> None:
        """Until something changes in the folder, where the file system tells; what else changes is seen after `seconds`."""
        import watchfiles

        for _ in watchfiles.watch(
            self._folder, rust_timeout=int(seconds * 1000), yield_on_timeout=True, raise_interrupt=True
        ):
            return

    def close(self) -> None:
        """Nothing is open."""

    def _files(self) -> list[tuple[str, Path]]:
        found = []
        for path in self._folder.rglob(self._pattern):
            name = path.relative_to(self._folder).as_posix()
            hidden = any(part.startswith(".") for part in name.split("/"))
            if not hidden and not name.endswith(_PASSED_OVER) and has_suffix(path, SUFFIXES) and path.is_file():
                found.append((path.stat().st_mtime_ns, name, path))
        return [(name, path) for _, name, path in sorted(found)]

    def _file(self, name: str, path: Path, places: dict[str, _Place]) -> Iterator[Batch]:
        found = path.stat()
        known = places.get(name)
        seen = (found.st_size, found.st_mtime_ns)
        if known is not None and known.whole and (known.size_bytes, known.modified_ns) == seen:
            return
        finished = time.time() - found.st_mtime > self._settled_s
        if not finished and not grows(path):
            return
        place = self._begin(name, path, found, places)
        rows: list[Row | Unreadable] = []
        at = place.at
        try:
            for behind, row in rows_from(path, place.at, finished=finished):
                rows.append(row)
                at = behind
                if len(rows) == self._batch_rows:
                    places[name] = self._moved_on(place, path, at, found, whole=False)
                    yield Batch(rows, {name: msgspec.to_builtins(places[name])})
                    rows = []
        except BadFile as error:
            if not finished:
                return
            rows.append(Unreadable(name, b"", Rejected(Reason.WRONG_TYPE, error.why)))
        after = path.stat()
        whole = finished and (after.st_size, after.st_mtime_ns) == seen
        final = self._moved_on(place, path, at, found, whole=whole)
        if rows or final != known:
            places[name] = final
            yield Batch(rows, {name: msgspec.to_builtins(final)})

    def _begin(self, name: str, path: Path, found: Any, places: dict[str, _Place]) -> _Place:
        """From where to read the file: where it, or the file that it was, has been read to; else its beginning."""
        known = places.get(name)
        for place in [known] if known is not None else list(places.values()):
            appended = place.at > 0 and found.st_size >= place.at and (known is not None or place.inode == found.st_ino)
            if grows(path) and appended and _mark(path, place.at) == place.mark:
                return msgspec.structs.replace(place, inode=found.st_ino)
        digest = _digest(path)
        for place in [known] if known is not None else list(places.values()):
            if (place.first_bytes, place.digest) == (found.st_size, digest):
                return msgspec.structs.replace(place, inode=found.st_ino)
        if known is not None:
            log.info("source.file_replaced", file=name)
        return _Place(0, "", found.st_size, found.st_mtime_ns, False, digest, found.st_size, found.st_ino)

    def _moved_on(self, place: _Place, path: Path, at: int, found: Any, *, whole: bool) -> _Place:
        return msgspec.structs.replace(
            place,
            at=at,
            mark=_mark(path, at) if grows(path) else "",
            size_bytes=found.st_size,
            modified_ns=found.st_mtime_ns,
            whole=whole,
        )


def _mark(path: Path, at: int) -> str:
    """Hash of what stands before `at`, or of the last of it."""
    with path.open("rb") as file:
        start = max(at - _MARK_BYTES, 0)
        file.seek(start)
        return xxhash.xxh3_64_hexdigest(file.read(at - start))


def _digest(path: Path) -> str:
    """Hash of a whole file."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
