"""`headrace keys`: made, listed and revoked in a file that is always whole, and its owner's alone."""

import stat
import sys
import threading
from pathlib import Path

import pytest

from api.keys import KeyList, KeyRing, Scope
from cli import keys
from cli.main import main
from infra.file_lock import FileLock


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "folder" / "keys.json"
    monkeypatch.setenv("HEADRACE_API_KEYS", str(path))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["headrace", "keys", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_key_is_made_shown_once_and_works_until_it_is_revoked(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "create", "site", "--scope", "read", "--scope", "write") == 0
    captured = capsys.readouterr()
    # Only the token is on stdout: `KEY=$(headrace keys create ...)`.
    token = captured.out.strip()
    assert captured.out == f"{token}\n"
    assert "only time" in captured.err
    assert token not in captured.err
    client = KeyRing(file).client(token)
    assert client is not None
    assert (client.name, client.scopes) == ("site", frozenset({Scope.READ, Scope.WRITE}))
    assert token[16:] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    assert run(monkeypatch, "create", "ops", "--scope", "admin") == 0
    capsys.readouterr()
    assert run(monkeypatch, "list") == 0
    listed = capsys.readouterr().out
    assert [word in listed for word in ("site", "read, write", "ops", "admin", token[3:15])] == [True] * 5
    assert token[16:] not in listed

    assert run(monkeypatch, "revoke", "site") == 0
    assert KeyRing(file).client(token) is None
    assert [key.name for key in KeyList.parse(file.read_bytes()).keys] == ["ops"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in file.parent.iterdir()) == ["keys.json", "keys.json.lock"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "site", "--scope", "read"), "there is a key of the name 'site'"),
        (("create", "a b", "--scope", "read"), "name"),
        (("revoke", "nobody"), "there is no key of the name 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    run(monkeypatch, "create", "site", "--scope", "read")
    before = file.read_bytes()
    capsys.readouterr()
    assert run(monkeypatch, *arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("headrace: ")
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1
    assert file.read_bytes() == before


def test_a_scope_has_to_be_named_and_known(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "create", "site") == 2
    assert run(monkeypatch, "create", "site", "--scope", "root") == 2
    assert not file.exists()
    assert "root" in capsys.readouterr().err


def test_without_a_file_to_be_in_there_are_no_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HEADRACE_API_KEYS", raising=False)
    assert run(monkeypatch, "list") == 1
    assert "HEADRACE_API_KEYS is not set" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("list",), ("revoke", "site"), ("create", "other", "--scope", "read")])
def test_a_file_that_cannot_be_read_is_named_with_its_field_and_stays(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    file.parent.mkdir()
    file.write_text('{"schema": 1, "keys": [{"name": 7}]}')
    assert run(monkeypatch, *command) == 1
    said = capsys.readouterr().err
    assert f"HEADRACE_API_KEYS={str(file)!r}" in said
    assert "$.keys[0].name" in said
    assert file.read_text() == '{"schema": 1, "keys": [{"name": 7}]}'


def test_commands_at_the_same_time_lose_no_key(file: Path) -> None:
    makers = [threading.Thread(target=keys.create, args=(f"k{n}", [Scope.READ])) for n in range(8)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert {key.name for key in KeyList.parse(file.read_bytes()).keys} == {f"k{n}" for n in range(8)}


def test_a_command_that_cannot_have_the_file_says_so(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keys, "LOCK_TIMEOUT_S", 0.0)
    file.parent.mkdir()
    with FileLock(file.with_name("keys.json.lock")) as lock:
        assert lock.acquire()
        assert run(monkeypatch, "create", "site", "--scope", "read") == 1
    assert "try again" in capsys.readouterr().err
    assert not file.exists()
