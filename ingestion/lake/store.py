"""The lake as a place: which files there are, how far they reach, and whose turn it is to write or rewrite them.

Beside the datasets there are, in folders that begin with an underscore, `_claims` (ranges that were begun, see `writer`), `_gaps`
(ranges that the log had lost), `_tmp` and `_locks` (on a disk only), and `_forgotten.json` (see `forget`).
"""

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec

from infra.file_lock import FileLock
from infra.folder import Folder, NoSuchStore
from ingestion.lake.errors import LakeError, LakeTaken
from ingestion.lake.files import LakeFile, by_partition, parse, replaced

#: A mark of another machine that was not renewed for so long is of a process that is gone. Longer than any file takes.
ABANDONED_S = 3600.0
_RANGE = re.compile(r"(?P<topic>[^/]+)/(?P<partition>\d+)-(?P<first>\d+)(?:-(?P<last>\d+))?\.json")

#: Topic and partition.
Place = tuple[str, int]


class Claim(msgspec.Struct, frozen=True):
    """A range of a partition that becomes a file, begun at `first`, which is in the claim's name.

    Attributes
    ----------
    last : offset of its last record
    date, hour : of its file
    topic_id : Kafka's id of the topic, empty if it gives none
    """

    last: int
    date: Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\d\Z")]
    hour: Annotated[str, msgspec.Meta(pattern=r"^\d\d\Z")]
    topic_id: str = ""

    def file(self, topic: str, partition: int, first: int) -> LakeFile:
        """What it becomes."""
        return LakeFile(topic, partition, first, self.last, self.date, self.hour)


class Lake:
    """The lake at an address.

    Parameters
    ----------
    url : a folder or an fsspec URL

    Raises
    ------
    LakeError
        No such kind of store, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            self.folder = Folder(url)
        except NoSuchStore as error:
            raise LakeError(f"HEADRACE_LAKE={error}") from error
        self.url = url

    def files(self) -> list[LakeFile]:
        """All files, replaced ones too.

        A listing is not of one moment: one that a merge falls into may lack both what it merges and what it makes. So two in a row
        must be equal.
        """
        found = parse(self.folder.files())
        while (again := parse(self.folder.files())) != found:
            found = again
        return found

    def tidy(self) -> list[LakeFile]:
        """Remove files all of whose rows are in a larger one, as a merge that was killed has left them; returns the others."""
        files = self.files()
        left = replaced(files)
        for file in left:
            self.folder.remove(file.path)
        return [file for file in files if file not in left]

    def ends(self, files: list[LakeFile]) -> dict[Place, int]:
        """Next offset by topic and partition: behind all files, and all that the log had lost."""
        ends = {place: max(file.last for file in group) + 1 for place, group in by_partition(files)}
        for (topic, partition), _, last in self.gaps():
            ends[topic, partition] = max(ends.get((topic, partition), 0), last + 1)
        return ends

    def claims(self) -> dict[Place, list[int]]:
        """First offsets of the ranges that are claimed, in their order."""
        found: dict[Place, list[int]] = {}
        for path in self.folder.files("_claims"):
            match = _RANGE.fullmatch(path.removeprefix("_claims/"))
            if match is not None:
                found.setdefault((match["topic"], int(match["partition"])), []).append(int(match["first"]))
        return {place: sorted(firsts) for place, firsts in found.items()}

    def read_claim(self, place: Place, first: int) -> Claim:
        """What was claimed. Raises LakeError if it cannot be read."""
        path = _claim_path(place, first)
        try:
            return msgspec.json.decode(self.folder.read(path), type=Claim)
        except msgspec.MsgspecError as error:
            raise LakeError(f"{self.folder.where(path)} cannot be read ({error}): remove it") from error

    def claim(self, place: Place, first: int, claim: Claim) -> None:
        """Begin a range. Raises LakeTaken if another has begun one there."""
        if not self.folder.create(_claim_path(place, first), msgspec.json.encode(claim)):
            raise LakeTaken(
                f"{self.url}: another `headrace lake run` has written {place[0]}[{place[1]}] from {first} on, so this one ends: let"
                " one of them run"
            )

    def unclaim(self, place: Place, first: int) -> None:
        """Forget a claim whose file is there."""
        self.folder.remove(_claim_path(place, first))

    def gaps(self) -> list[tuple[Place, int, int]]:
        """Place, first and last offset of all that the log had lost before it was read."""
        found = [_RANGE.fullmatch(path.removeprefix("_gaps/")) for path in self.folder.files("_gaps")]
        return [
            ((each["topic"], int(each["partition"])), int(each["first"]), int(each["last"]))
            for each in found
            if each and each["last"] is not None
        ]

    def record_gap(self, place: Place, first: int, last: int) -> None:
        """Record that the log no longer had these offsets."""
        said = {"found_at_s": int(time.time()), "reason": "the topic's retention deleted them before they were read"}
        self.folder.write(f"_gaps/{place[0]}/{place[1]}-{first}-{last}.json", json.dumps(said).encode())

    @contextmanager
    def turn(self, name: str, what: str) -> Iterator[Callable[[], None]]:
        """Be the only one who does something; gives what is to be called now and then meanwhile.

        On a disk it is a lock that the kernel frees; elsewhere a mark, which whoever finds it abandoned takes over.

        Raises
        ------
        LakeTaken
            Somebody else does it; also from what is called meanwhile.
        """
        if self.folder.local:
            path = Path(self.folder.path(f"_locks/{name}"))
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path) as lock:
                if not lock.acquire():
                    raise LakeTaken(f"another `headrace lake` command {what} {self.url}: let it end first")
                yield lambda: None
            return
        path_, mine = f"_locks/{name}.json", f"{socket.gethostname()}-{os.getpid()}-{time.monotonic_ns()}"

        def mark() -> bytes:
            said = {"host": socket.gethostname(), "pid": os.getpid(), "at_s": time.time(), "who": mine}
            return json.dumps(said).encode()

        def renew() -> None:
            if self._holder(path_).get("who") != mine:
                raise LakeTaken(f"another `headrace lake` command {what} {self.url}: this one ends")
            self.folder.write(path_, mark())

        if not self.folder.create(path_, mark()):
            holder = self._holder(path_)
            if not _is_abandoned(holder):
                raise LakeTaken(
                    f"another `headrace lake` command {what} {self.url} (process {holder.get('pid')} on {holder.get('host')}): let it"
                    f" end first, or remove {self.folder.where(path_)} if it is gone"
                )
            self.folder.write(path_, mark())
        try:
            yield renew
        finally:
            if self._holder(path_).get("who") == mine:
                self.folder.remove(path_)

    def _holder(self, path: str) -> dict[str, object]:
        try:
            found = json.loads(self.folder.read(path))
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _claim_path(place: Place, first: int) -> str:
    return f"_claims/{place[0]}/{place[1]}-{first}.json"


def _is_abandoned(holder: dict[str, object]) -> bool:
    at_s, pid = holder.get("at_s"), holder.get("pid")
    if not isinstance(at_s, int | float) or not isinstance(pid, int) or time.time() - at_s > ABANDONED_S:
        return True
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
