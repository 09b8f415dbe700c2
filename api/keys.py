"""API keys: who may ask, by a token that is shown once and kept as a hash.

Flows in: one JSON file, and tokens as clients send them. Flows out: the `Client` that a token belongs to, or None.
Always holds: no token is in the file or in memory for longer than a request, and comparing takes as long for a wrong secret as
for a right one.

A token is `hr_`, 12 hex digits that name the key, `_`, and 256 random bits. What is kept is its plain SHA-256: a slow hash makes
guessing dear where people choose passwords, and nobody guesses 256 random bits. A fast one keeps wrong keys cheap to refuse.
"""

import datetime
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import structlog

log = structlog.get_logger(__name__)

SCHEMA = 1
PREFIX = "hr_"
ID_BYTES, SECRET_BYTES = 6, 32
#: `hr_`, the id, `_`, and 32 bytes in base64url: whatever has another length is no token, and is not even hashed.
TOKEN = re.compile(r"hr_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
#: Between two looks at whether the file has changed.
LOOK_EVERY_S = 1.0
#: What a token that names no key is compared with.
_NO_HASH = "0" * 64


class Scope(StrEnum):
    """What a key may do. A key has a set of them, and none includes another: whoever may write need not read."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class BadKeys(ValueError):
    """The file of keys cannot be used; the message says where and why."""


_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One key as it is kept.

    Attributes
    ----------
    id : the part of the token that is no secret
    name : of the client, as it stands in logs
    hash : SHA-256 of the token, in hex
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{12}\Z")]
    name: _Name
    scopes: Annotated[tuple[Scope, ...], msgspec.Meta(min_length=1)]
    created: datetime.date
    hash: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class KeyList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    schema: int
    keys: tuple[Key, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> "KeyList":
        """Read a file's content. Raises BadKeys, naming the field."""
        try:
            found = msgspec.json.decode(raw, type=cls)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadKeys(str(error)) from error
        if found.schema != SCHEMA:
            raise BadKeys(f"schema {found.schema} is not {SCHEMA}, which this version reads - at `$.schema`")
        for field in ("id", "name"):
            values = [getattr(key, field) for key in found.keys]
            if len(set(values)) != len(values):
                raise BadKeys(f"two keys have one {field} - at `$.keys[...].{field}`")
        return found

    def encode(self) -> bytes:
        """The file's content."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

    def with_new(self, name: str, scopes: Iterable[Scope], today: datetime.date) -> tuple["KeyList", str]:
        """Itself with one more key, and the key's token, which is nowhere else. Raises BadKeys for a name that is taken or none."""
        if any(key.name == name for key in self.keys):
            raise BadKeys(f"there is a key of the name {name!r}: revoke it first, or choose another name")
        key_id = secrets.token_hex(ID_BYTES)
        token = f"{PREFIX}{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
        key = Key(key_id, name, tuple(scope for scope in Scope if scope in set(scopes)), today, _hash(token))
        # Through its own reader: what it does not take, no worker will.
        return KeyList.parse(msgspec.json.encode(KeyList(self.schema, (*self.keys, key)))), token

    def without(self, name: str) -> "KeyList":
        """Itself without the key of that name. Raises BadKeys if there is none."""
        left = tuple(key for key in self.keys if key.name != name)
        if len(left) == len(self.keys):
            raise BadKeys(f"there is no key of the name {name!r}")
        return KeyList(self.schema, left)


@dataclass(frozen=True)
class Client:
    """Who asks: a key's name, and what it may do."""

    name: str
    scopes: frozenset[Scope]


class KeyRing:
    """The keys of a file, read anew when it changes.

    Parameters
    ----------
    path : of the file

    Raises
    ------
    BadKeys
        The file is not there or cannot be used. Later, a file that cannot be used leaves the keys as they are, and is logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self._seen = self._state()
        self._clients: dict[str, tuple[str, Client]] = self._read()

    def client(self, token: str) -> Client | None:
        """The client that a token belongs to; None for a wrong one."""
        if time.monotonic() >= self._look_at:
            self._look()
        found = TOKEN.fullmatch(token)
        if found is None:
            return None
        expected, client = self._clients.get(found[1], (_NO_HASH, None))
        return client if hmac.compare_digest(_hash(token), expected) else None

    def _look(self) -> None:
        self._look_at = time.monotonic() + LOOK_EVERY_S
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._clients = self._read()
        except BadKeys as error:
            log.error(
                "the new file of API keys cannot be used; the old keys stay", file=str(self._path), why=str(error)
            )
        else:
            log.info("API keys read anew", file=str(self._path), keys=len(self._clients))

    def _state(self) -> tuple[int, ...]:
        """What changes when the file does; empty while there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return (found.st_mtime_ns, found.st_ino, found.st_size)

    def _read(self) -> dict[str, tuple[str, Client]]:
        try:
            raw = self._path.read_bytes()
        except OSError as error:
            raise BadKeys(f"{error.strerror}: make it with `headrace keys create NAME --scope read`") from error
        keys = KeyList.parse(raw).keys
        return {key.id: (key.hash, Client(key.name, frozenset(key.scopes))) for key in keys}


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
