"""MLflow, with a registry in a SQLite file: a save is a run and a version, and the promoted one has the alias."""

import math
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli import models
from cli.main import main
from cli.model_facts import CONFIGURATION, configuration_of, online_metrics
from cli.model_registry import ModelRegistry, RegistryFailed, metric_name
from infra.settings import Settings
from state.snapshot import decode_manifest, encode_manifest
from tests.state.test_snapshot import manifest


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'headrace[mlflow]'")
    monkeypatch.chdir(tmp_path)  # artifacts go below the working folder
    with warnings.catch_warnings():
        # Of what MLflow and its database library say to each other.
        warnings.simplefilter("ignore")
        yield f"sqlite:///{tmp_path}/registry.db"


def test_a_save_is_a_run_and_a_version_and_the_promoted_one_has_the_alias(uri: str) -> None:
    from mlflow import MlflowClient

    app = f"app-{uuid.uuid4().hex[:8]}"
    settings = Settings(app=app, mlflow_tracking_uri=uri)
    registry = ModelRegistry(uri, app)
    measures = {'headrace_online_recall{arm="served",window="hour"}': 0.25}
    for number, name in enumerate(("v1-a", "v1-b")):
        registry.saved(manifest(name, created_ms=1_000 + number, metrics=measures), f"file:///snapshots/{app}/{name}/")
    client: Any = MlflowClient(uri, uri)
    runs = client.search_runs([client.get_experiment_by_name(app).experiment_id], order_by=["params.created_ms"])
    assert [(run.info.run_name, run.info.status) for run in runs] == [("v1-a", "FINISHED"), ("v1-b", "FINISHED")]
    assert runs[0].data.params == {"seed": "1", "package": "0.1", "created_ms": "1000"}
    assert runs[0].data.metrics["headrace_online_recall/arm.served/window.hour"] == 0.25
    assert (runs[0].data.metrics["rows_users"], runs[0].data.metrics["size_bytes"]) == (3.0, 200.0)
    [kept] = Path(runs[0].info.artifact_uri.removeprefix("file://")).glob("manifest.json")
    assert decode_manifest(kept.read_bytes(), "").name == "v1-a"
    versions = {each.tags["headrace.snapshot"]: each for each in client.search_model_versions(f"name = '{app}'")}
    assert versions["v1-b"].source == f"file:///snapshots/{app}/v1-b/"
    for name in ("v1-a", "v1-b", "v1-a"):
        models._tell_registry(settings, lambda told, name=name: told.promoted(name))  # type: ignore[misc] # a default binds it
        assert client.get_model_version_by_alias(app, "champion").version == versions[name].version
    with pytest.raises(RegistryFailed, match="no version of snapshot v1-c"):
        registry.promoted("v1-c")


@pytest.mark.usefixtures("uri")
def test_a_registry_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(RegistryFailed) as caught:
        ModelRegistry("sqlite:////nowhere/at/all.db", "app").promoted("v1-a")
    assert len(str(caught.value).splitlines()) == 1


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(RegistryFailed, match=r"pip install 'headrace\[mlflow\]'"):
        ModelRegistry("sqlite:///x.db", "app")


def test_a_command_goes_on_where_mlflow_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    models._tell_registry(Settings(mlflow_tracking_uri="sqlite:///x.db"), lambda registry: registry.promoted("v1-a"))
    assert "MLflow was not told: MLFLOW_TRACKING_URI is set, and a package is missing" in capsys.readouterr().err


def test_mlflow_is_not_imported_unless_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HEADRACE_SNAPSHOTS", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["headrace", "models", "list"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "Snapshots of headrace" in capsys.readouterr().out


def test_names_of_measures_are_those_that_mlflow_allows() -> None:
    assert metric_name('headrace_online_hits{arm="a b",window="1 h"}') == "headrace_online_hits/arm.a b/window.1 h"
    assert metric_name("plain") == "plain"
    assert metric_name('odd{arm="ü%"}') == "odd/arm.__"


def test_the_configuration_holds_no_secret_and_what_files_say(tmp_path: Path) -> None:
    signals = tmp_path / "signals.json"
    signals.write_bytes(orjson.dumps({"long_watch_seconds": 30}))
    settings = Settings(
        api_key="hr_secret", redis_url="redis://:secret@host", kafka_bootstrap_servers="secret:1", signals=signals,
        snapshots="s3://secret@bucket", mlflow_tracking_uri="http://user:secret@host",
    )  # fmt: skip
    found = configuration_of(settings)
    assert b"secret" not in orjson.dumps(found)
    assert found["signals"] == {"long_watch_seconds": 30}
    assert set(CONFIGURATION) < found.keys()


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = (
            b"# HELP headrace_online_recall x\n"
            b'headrace_online_recall{arm="served"} 0.5\nheadrace_online_gini{window="a b"} NaN\nheadrace_users 3\n'
        )
        known = self.headers["Authorization"] == "Bearer hr_key"
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_a_worker_that_answers_tells_what_it_measures() -> None:
    with HTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        told = online_metrics(Settings(web_port=server.server_port, api_key="hr_key"))
        refused = online_metrics(Settings(web_port=server.server_port, api_key="hr_other"))
        server.shutdown()
        thread.join()
        port = server.server_port
    assert told == {'headrace_online_recall{arm="served"}': 0.5}
    assert refused == {}
    assert online_metrics(Settings(web_port=port)) == {}
    assert all(math.isfinite(value) for value in told.values())
    assert encode_manifest(manifest(metrics=told))
