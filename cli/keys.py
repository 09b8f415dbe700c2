"""`headrace keys`: make, list and revoke the API keys of the file that `HEADRACE_API_KEYS` names.

Workers read the file anew within a second or so of a change. It is always there as a whole: a new one takes the old one's place.
"""

import contextlib
import datetime
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from api.keys import SCHEMA, BadKeys, KeyList, Scope
from infra.file_lock import FileLock
from infra.settings import Settings, SettingsError

LOCK_TIMEOUT_S = 10.0

keys = typer.Typer(
    help="Make, list and revoke the API keys that HEADRACE_API_KEYS names.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_Name = Annotated[
    str, typer.Argument(help="Of whoever gets the key, as it stands in logs: letters, digits, . _ and -.")
]


class KeyRefused(ValueError):
    """The keys cannot be changed as asked; the message says why."""


@keys.command()
def create(
    name: _Name,
    scope: Annotated[list[Scope], typer.Option(help="What the key may do; again for more. None includes another.")],
) -> None:
    """Make a key, and print it: it is shown this once, and only its hash is kept."""
    path = _path()
    with _locked(path):
        try:
            changed, token = _read(path, new=True).with_new(name, scope, datetime.datetime.now(datetime.UTC).date())
        except BadKeys as error:
            raise KeyRefused(str(error)) from error
        _write(path, changed)
    typer.echo(f"The key {name!r} is in {path}. This is the only time that it is shown:", err=True)
    typer.echo(token)


@keys.command(name="list")
def list_() -> None:
    """List the keys: names, scopes, and when they were made."""
    table = Table("name", "scopes", "created", "id")
    for key in _read(_path()).keys:
        table.add_row(key.name, ", ".join(key.scopes), key.created.isoformat(), key.id)
    Console(highlight=False, markup=False).print(table)


@keys.command()
def revoke(name: _Name) -> None:
    """Take a key out: workers refuse it from a second or so later on."""
    path = _path()
    with _locked(path):
        try:
            changed = _read(path).without(name)
        except BadKeys as error:
            raise KeyRefused(str(error)) from error
        _write(path, changed)
    typer.echo(f"The key {name!r} is revoked.")


def _path() -> Path:
    path = Settings().api_keys
    if path is None:
        raise SettingsError("HEADRACE_API_KEYS is not set: it names the file that the keys are in")
    return path


def _read(path: Path, *, new: bool = False) -> KeyList:
    """The keys in the file; none, if it may be `new` and is not there. Raises SettingsError, naming the file and the field."""
    try:
        return KeyList.parse(path.read_bytes())
    except FileNotFoundError as error:
        if new:
            return KeyList(SCHEMA)
        raise SettingsError(f"HEADRACE_API_KEYS={str(path)!r}: there is no such file") from error
    except BadKeys as error:
        raise SettingsError(f"HEADRACE_API_KEYS={str(path)!r}: {error}") from error


def _write(path: Path, changed: KeyList) -> None:
    """Put a new file, for its owner's eyes only (mkstemp makes none other), in the old one's place."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(changed.encode())
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one command changes the file at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")) as lock:
        if not lock.acquire(LOCK_TIMEOUT_S):
            raise KeyRefused(f"another command is changing {path}: try again when it has ended")
        yield
