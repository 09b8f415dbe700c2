"""MLflow: each snapshot as a run and a version of a registered model, the promoted one under the alias `champion`.

Flows in: manifests. Flows out: parameters, measures, the manifest as an artifact, and where the files are. The files stay in the store
of snapshots. Needs `headrace[mlflow]`, and is imported only where MLFLOW_TRACKING_URI is set.
"""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from state.snapshot import MANIFEST, Manifest, encode_manifest

ALIAS = "champion"
#: Of a version of the registered model: the name of the snapshot.
TAG = "headrace.snapshot"


class RegistryFailed(RuntimeError):
    """MLflow could not be told; the message says why."""


class ModelRegistry:
    """The experiment and the registered model called after the app.

    Parameters
    ----------
    uri : MLFLOW_TRACKING_URI; the registry is the same server or database

    Raises
    ------
    RegistryFailed
        MLflow is not installed.
    """

    def __init__(self, uri: str, app: str) -> None:
        # It would tell its makers that it is used.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise RegistryFailed(
                f"MLFLOW_TRACKING_URI is set, and a package is missing ({error}): pip install 'headrace[mlflow]'"
            ) from error
        self._app = app
        try:
            self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
        except Exception as error:
            raise _failed(error) from error

    def saved(self, manifest: Manifest, where: str) -> None:
        """Log a run for a snapshot, and register it. Raises RegistryFailed."""
        try:
            self._saved(manifest, where)
        except Exception as error:
            raise _failed(error) from error

    def _saved(self, manifest: Manifest, where: str) -> None:
        client = self._client
        experiment = client.get_experiment_by_name(self._app)
        experiment_id = client.create_experiment(self._app) if experiment is None else experiment.experiment_id
        run = client.create_run(experiment_id, run_name=manifest.name, tags={TAG: manifest.name})
        run_id = run.info.run_id
        status = "FAILED"
        try:
            params = {**manifest.configuration, "package": manifest.package, "created_ms": manifest.created_ms}
            for name, value in params.items():
                client.log_param(run_id, name, value)
            sizes = {f"rows_{table}": rows for table, rows in manifest.rows.items()} | {
                "size_bytes": manifest.size_bytes
            }
            for name, value in {**sizes, **manifest.metrics}.items():
                client.log_metric(run_id, metric_name(name), value, timestamp=manifest.created_ms)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / MANIFEST
                path.write_bytes(encode_manifest(manifest))
                client.log_artifact(run_id, str(path))
            if not client.search_registered_models(f"name = '{self._app}'"):
                client.create_registered_model(self._app, description="Snapshots of Headrace")
            tags = {TAG: manifest.name, "headrace.version": manifest.version}
            client.create_model_version(self._app, where, run_id, tags=tags)
            status = "FINISHED"
        finally:
            client.set_terminated(run_id, status)

    def promoted(self, name: str) -> None:
        """Let the alias name the version of a snapshot. Raises RegistryFailed."""
        try:
            found = [
                each
                for each in self._client.search_model_versions(f"name = '{self._app}'")
                if each.tags.get(TAG) == name
            ]
            if found:
                self._client.set_registered_model_alias(self._app, ALIAS, found[0].version)
        except Exception as error:
            raise _failed(error) from error
        if not found:
            raise RegistryFailed(
                f"{self._app} has no version of snapshot {name}: MLFLOW_TRACKING_URI was not set at its save"
            )


def metric_name(name: str) -> str:
    """The name of a measure as MLflow allows it: `recall{arm="served"}` becomes `recall/arm.served`."""
    parts = re.findall(r'(\w+)="([^"]*)"', name)
    plain = "/".join([name.partition("{")[0], *(f"{label}.{value}" for label, value in parts)])
    return re.sub(r"[^A-Za-z0-9_\-./ ]", "_", plain)


def _failed(error: Exception) -> RegistryFailed:
    # Messages of databases run over many lines, and may end with what was sent.
    return RegistryFailed(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}")
