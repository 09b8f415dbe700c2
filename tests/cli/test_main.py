"""The command line: what an operator must see is one line on stderr, and the exit status tells."""

import subprocess
import sys

import pytest

from cli.main import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["headrace", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_help_lists_the_subcommands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    assert "broker" in capsys.readouterr().out


def test_an_operators_error_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HEADRACE_WEB_PORTS", "1")
    assert run(monkeypatch, "broker") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "headrace: HEADRACE_WEB_PORTS is not a setting, did you mean HEADRACE_WEB_PORT?\n"


def test_an_unknown_subcommand_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "brokr") == 2
    assert "brokr" in capsys.readouterr().err


def test_ctrl_c_has_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.main.app", interrupt)
    assert run(monkeypatch) == 130


def test_models_and_the_worker_are_loaded_by_the_commands_that_need_them() -> None:
    """`headrace --help` and each command that only talks to a worker would wait for them."""
    loaded = "import sys, cli.main; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    slow = {"online_models", "agents", "faust", "redis", "river", "matplotlib", "pandas", "mlflow"}
    found = set(done.stdout.split())
    assert "topics" in found
    assert not found & slow
