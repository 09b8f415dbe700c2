"""API keys: what a file may hold, what a token is worth, and a file that changes while a worker runs."""

import base64
import datetime
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from api import keys
from api.keys import SCHEMA, TOKEN, BadKeys, KeyList, KeyRing, Scope

TODAY = datetime.date(2026, 1, 2)
GOOD: dict[str, Any] = {
    "id": "0123456789ab",
    "name": "site",
    "scopes": ["read"],
    "created": "2026-01-02",
    "hash": "0" * 64,
}


def file_of(*entries: dict[str, Any], schema: int = SCHEMA, **more: Any) -> bytes:
    return json.dumps({"schema": schema, "keys": list(entries), **more}).encode()


def test_a_token_is_256_random_bits_and_is_not_in_the_file() -> None:
    made = [KeyList(SCHEMA).with_new(f"k{n}", [Scope.READ], TODAY) for n in range(50)]
    tokens = {token for _, token in made}
    assert len(tokens) == 50
    for held, token in made:
        assert TOKEN.fullmatch(token)
        secret = token.removeprefix("hr_").partition("_")[2]
        assert len(base64.urlsafe_b64decode(f"{secret}=")) == 32
        assert secret not in held.encode().decode()


def test_what_is_written_is_read_again_as_it_was() -> None:
    held, _ = KeyList(SCHEMA).with_new("site", [Scope.WRITE, Scope.READ, Scope.WRITE], TODAY)
    held, _ = held.with_new("ops", [Scope.ADMIN], TODAY)
    assert KeyList.parse(held.encode()) == held
    assert [key.scopes for key in held.keys] == [(Scope.READ, Scope.WRITE), (Scope.ADMIN,)]
    assert [key.name for key in held.without("site").keys] == ["ops"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "truncated"),
        (b"[]", r"Expected `object`"),
        (b"[" * 100_000, "."),
        (b'{"keys": []}', "schema"),
        (file_of(schema=2), r"schema 2 is not 1.*\$\.schema"),
        (file_of(surprise=1), "unknown field `surprise`"),
        (file_of({**GOOD, "surprise": 1}), r"unknown field `surprise`.*\$\.keys"),
        (file_of({**GOOD, "scopes": []}), r"\$\.keys\[0\]\.scopes"),
        (file_of({**GOOD, "scopes": ["root"]}), r"'root'.*\$\.keys\[0\]\.scopes"),
        (file_of({**GOOD, "name": "a b"}), r"\$\.keys\[0\]\.name"),
        (file_of({**GOOD, "hash": "00"}), r"\$\.keys\[0\]\.hash"),
        (file_of({**GOOD, "id": "0123456789AB"}), r"\$\.keys\[0\]\.id"),
        (file_of({**GOOD, "created": "yesterday"}), r"\$\.keys\[0\]\.created"),
        (file_of(GOOD, {**GOOD, "id": "f" * 12}), "two keys have one name"),
        (file_of(GOOD, {**GOOD, "name": "other"}), "two keys have one id"),
        (b'{"schema": 1, "keys": [{"name": "\xff"}]}', "."),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_the_field_is_named(raw: bytes, said: str) -> None:
    with pytest.raises(BadKeys, match=said):
        KeyList.parse(raw)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ø", "a\n"])
def test_a_name_that_logs_could_not_show_is_refused(name: str) -> None:
    with pytest.raises(BadKeys, match="name"):
        KeyList(SCHEMA).with_new(name, [Scope.READ], TODAY)


def test_names_are_given_once_and_only_what_is_there_can_be_revoked() -> None:
    held, _ = KeyList(SCHEMA).with_new("site", [Scope.READ], TODAY)
    with pytest.raises(BadKeys, match="'site'"):
        held.with_new("site", [Scope.READ], TODAY)
    with pytest.raises(BadKeys, match="'nobody'"):
        held.without("nobody")
    with pytest.raises(BadKeys, match="scopes"):
        held.with_new("nothing", [], TODAY)


class File:
    """A file of keys, written in one piece as the command does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held = KeyList(SCHEMA)
        self.write(self.held.encode())

    def add(self, name: str, *scopes: Scope) -> str:
        self.held, token = self.held.with_new(name, scopes, TODAY)
        self.write(self.held.encode())
        return token

    def revoke(self, name: str) -> None:
        self.held = self.held.without(name)
        self.write(self.held.encode())

    def write(self, raw: bytes) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_bytes(raw)
        beside.replace(self.path)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "keys.json")


@pytest.fixture
def _every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the file at every request."""
    monkeypatch.setattr(keys, "LOOK_EVERY_S", 0.0)


def test_a_token_is_worth_its_keys_scopes_and_a_wrong_one_nothing(file: File) -> None:
    site, ops = file.add("site", Scope.READ), file.add("ops", Scope.ADMIN, Scope.WRITE)
    ring = KeyRing(file.path)
    client = ring.client(site)
    assert client is not None
    assert (client.name, client.scopes) == ("site", frozenset({Scope.READ}))
    found = ring.client(ops)
    assert found is not None
    assert found.scopes == {Scope.ADMIN, Scope.WRITE}
    crossed = site[:16] + ops[16:]
    last = "A" if site[20] != "A" else "B"
    wrong = [
        "",
        "hr_",
        crossed,
        site[:20] + last + site[21:],
        site[:-1],
        site + "A",
        site.upper(),
        f" {site}",
        f"{site}\n",
        "hr_ffffffffffff_" + "A" * 43,
        "hr_" + "é" * 56,
        "x" * 1_000_000,
        # A hash that was stolen with the file opens nothing.
        f"hr_{file.held.keys[0].id}_{file.held.keys[0].hash[:43]}",
        file.held.keys[0].hash,
    ]
    assert [ring.client(token) for token in wrong] == [None] * len(wrong)


@pytest.mark.usefixtures("_every_look")
def test_keys_that_are_made_or_revoked_count_while_it_runs(file: File) -> None:
    site = file.add("site", Scope.READ)
    ring = KeyRing(file.path)
    later = file.add("later", Scope.WRITE)
    assert ring.client(later) is not None
    assert ring.client(site) is not None
    file.revoke("site")
    assert ring.client(site) is None
    assert ring.client(later) is not None


def test_it_looks_at_the_file_once_a_second_at_most(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ring = KeyRing(file.path)
    token = file.add("site", Scope.READ)
    now += 0.99
    assert ring.client(token) is None
    now += 0.02
    assert ring.client(token) is not None


@pytest.mark.usefixtures("_every_look")
@pytest.mark.parametrize("broken", [b"{", file_of({**GOOD, "scopes": ["root"]}), None])
def test_a_broken_new_file_leaves_the_old_keys_and_is_told_once(file: File, broken: bytes | None) -> None:
    site = file.add("site", Scope.READ)
    ring = KeyRing(file.path)
    with capture_logs() as logs:
        if broken is None:
            file.path.unlink()
        else:
            file.write(broken)
        assert [ring.client(site) is not None for _ in range(3)] == [True] * 3
    assert [(line["log_level"], line["file"]) for line in logs] == [("error", str(file.path))]
    file.held = KeyList(SCHEMA)
    other = file.add("other", Scope.READ)
    assert ring.client(other) is not None
    assert ring.client(site) is None


def test_a_file_that_is_not_there_at_the_start_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BadKeys, match="headrace keys create"):
        KeyRing(tmp_path / "none.json")


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "keys.json"
    folder.mkdir()
    with pytest.raises(BadKeys, match=os.strerror(21)):
        KeyRing(folder)
