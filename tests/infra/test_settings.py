"""Settings: defaults, variables with and without the prefix, and errors that name the variable."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from infra.settings import PREFIX, SECRETS, Settings, SettingsError, variable_of


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)


def test_every_setting_has_a_default() -> None:
    settings = Settings()
    assert settings.group == "headrace.v1"
    assert settings.state_dir == Path(".headrace/state/v1")
    assert settings.kafka_bootstrap_servers is None


def test_variables_set_their_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_VERSION", "v7")
    monkeypatch.setenv("HEADRACE_HOME", "elsewhere")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker:9092")
    monkeypatch.setenv("REDIS_URL", "")
    settings = Settings()
    assert settings.state_dir == Path("elsewhere/state/v7")
    assert settings.kafka_bootstrap_servers == "broker:9092"
    assert settings.redis_url is None


def test_an_argument_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PARTITIONS", "8")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker:9092")
    settings = Settings(partitions=2, kafka_bootstrap_servers="other:9092")
    assert (settings.partitions, settings.kafka_bootstrap_servers) == (2, "other:9092")


def test_an_unknown_variable_is_named_with_the_nearest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_PARTITION", "8")
    with pytest.raises(SettingsError, match=r"^HEADRACE_PARTITION is not a setting, did you mean HEADRACE_PARTITIONS"):
        Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HEADRACE_PARTITIONS", "four"),
        ("HEADRACE_PARTITIONS", "0"),
        ("HEADRACE_WEB_PORT", "65536"),
        ("HEADRACE_APP", "head race"),
        ("HEADRACE_POSITIVES_PER_DAY", "nan"),
        ("HEADRACE_EXPLORATION", "1.1"),
        ("HEADRACE_EXPLORATION", "nan"),
        ("HEADRACE_USER_TTL_DAYS", "0"),
        ("HEADRACE_VIDEO_TTL_DAYS", "soon"),
        ("HEADRACE_LOG_FORMAT", "xml"),
        ("KAFKA_BOOTSTRAP_SERVERS", " "),
    ],
)
def test_a_malformed_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        Settings()
    assert f"{variable}={value!r}: " in str(caught.value)


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_NONSENSE", "1")
    monkeypatch.setenv("HEADRACE_SEED", "-1")
    with pytest.raises(SettingsError, match=r"HEADRACE_NONSENSE.*; HEADRACE_SEED='-1'"):
        Settings()


def test_every_variable_sets_a_field_of_its_own() -> None:
    variables = [variable_of(field) for field in Settings.model_fields]
    assert len(set(variables)) == len(variables)
    assert "HEADRACE_CHECKPOINT_INTERVAL_MS" in variables


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:6066"),
        ({"web_host": "10.0.0.3", "web_port": 80}, "http://10.0.0.3:80"),
        ({"web_host": "::1"}, "http://[::1]:6066"),
        ({"web_host": "0.0.0.0"}, f"http://{socket.gethostname()}:6066"),  # noqa: S104 - nothing is bound
        ({"web_host": "::"}, f"http://{socket.gethostname()}:6066"),
        ({"advertised_url": "https://worker-3.internal/"}, "https://worker-3.internal"),
        ({"advertised_url": "http://[fd00::3]:6066"}, "http://[fd00::3]:6066"),
    ],
)
def test_other_workers_are_told_where_this_one_is(given: dict[str, Any], url: str) -> None:
    assert Settings(**given).peer_url == url


@pytest.mark.parametrize(
    "url",
    ["10.0.0.3:6066", "ftp://a", "http://", "http://a:99999", "http://a:0", "http://a:b", "http://a/b", "http://a?b", "http://a#b",
     "http://user@a", "http://a b", "http://[::1"],
)  # fmt: skip
def test_an_advertised_url_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HEADRACE_ADVERTISED_URL", url)
    with pytest.raises(SettingsError, match=r"HEADRACE_ADVERTISED_URL=.*http://HOST:PORT"):
        Settings()


SECRET_VARIABLES = [
    "HEADRACE_API_KEY",
    "HEADRACE_KAFKA_PASSWORD",
    "HEADRACE_REDIS_PASSWORD",
    "HEADRACE_SOURCE_TOKEN",
    "HEADRACE_SOURCE_URL",
    "REDIS_URL",
]


@pytest.mark.parametrize("variable", SECRET_VARIABLES)
def test_a_secret_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    assert sorted(map(variable_of, SECRETS)) == SECRET_VARIABLES
    file = tmp_path / "secret"
    file.write_text(" s3cret \n")
    monkeypatch.setenv(f"{variable}_FILE", str(file))
    settings = Settings()
    [field] = [field for field in SECRETS if variable_of(field) == variable]
    assert getattr(settings, field).get_secret_value() == " s3cret "  # but for the end of the line, all of it
    assert "s3cret" not in repr(settings) + str(settings) + settings.model_dump_json()
    monkeypatch.setenv(variable, "other")
    with pytest.raises(SettingsError, match=f"^{variable} and {variable}_FILE are both set: unset one$"):
        Settings()


def test_a_file_of_a_secret_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    monkeypatch.setenv("HEADRACE_KAFKA_PASSWORD_FILE", str(file))
    with pytest.raises(SettingsError, match=r"^HEADRACE_KAFKA_PASSWORD_FILE='.*secret': No such file or directory$"):
        Settings()
    file.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match=r"it is no text in UTF-8"):
        Settings()
    file.write_text("\n")
    with pytest.raises(SettingsError, match=r"^HEADRACE_KAFKA_PASSWORD: .*at least 1"):
        Settings()


def test_a_malformed_secret_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(kafka_password=["s3cret"])
    assert "HEADRACE_KAFKA_PASSWORD: " in str(caught.value)
    assert "s3cret" not in str(caught.value)
