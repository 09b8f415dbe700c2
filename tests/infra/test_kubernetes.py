"""The manifests say what workers need: disks that stay, time for the last checkpoint, one disruption at a time."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import unknown_variables
from tests.infra.manifests import KUBERNETES, OVERLAYS, ROOT, Manifest, one, read, rendered, settings_of

BASE = KUBERNETES / "base"
#: Read, not imported: it would bring the whole worker.
[STOP_TIMEOUT_S] = map(
    float, re.findall(r"^STOP_TIMEOUT_S = ([\d.]+)$", (ROOT / "cli" / "worker_life.py").read_text(), re.M)
)


def container(manifest: Manifest) -> dict[str, Any]:
    [found] = manifest["spec"]["template"]["spec"]["containers"]
    return dict(found)


def seconds_until_killed(probe: dict[str, Any]) -> int:
    return int(probe["periodSeconds"] * probe["failureThreshold"])


def test_a_restart_keeps_the_stores() -> None:
    worker = one(read(BASE), "StatefulSet")
    [claim] = worker["spec"]["volumeClaimTemplates"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container(worker)["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == "/var/lib/headrace"
    assert "HEADRACE_HOME=/var/lib/headrace" in (ROOT / "Dockerfile").read_text()
    assert worker["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenScaled": "Retain", "whenDeleted": "Retain"}


def test_a_worker_has_time_for_its_last_checkpoint() -> None:
    spec = one(read(BASE), "StatefulSet")["spec"]["template"]["spec"]
    slept = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= slept + STOP_TIMEOUT_S + 10


def test_probes_are_patient_where_a_worker_may_be_silent() -> None:
    worker = container(one(read(BASE), "StatefulSet"))
    assert worker["livenessProbe"]["httpGet"]["path"] == worker["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert worker["readinessProbe"]["httpGet"]["path"] == "/readyz"
    # Compiling takes up to a minute; between two tries a worker is silent for up to half a minute.
    assert seconds_until_killed(worker["startupProbe"]) >= 180
    assert seconds_until_killed(worker["livenessProbe"]) >= 120
    assert seconds_until_killed(worker["readinessProbe"]) <= 5


def test_one_worker_at_most_is_disrupted_and_labels_meet() -> None:
    manifests = read(BASE)
    labels = one(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    budget = one(manifests, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    selectors = [
        budget["selector"]["matchLabels"],
        one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        one(manifests, "Service", "headrace")["spec"]["selector"],
        one(manifests, "Service", "headrace-workers")["spec"]["selector"],
        one(manifests, "StatefulSet")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels for selector in selectors)


def test_each_worker_is_reached_by_a_name_of_its_own() -> None:
    manifests = read(BASE)
    service = one(manifests, "Service", "headrace-workers")["spec"]
    worker = one(manifests, "StatefulSet")
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert worker["spec"]["serviceName"] == "headrace-workers"
    urls = [each["value"] for each in container(worker)["env"] if each["name"] == "HEADRACE_ADVERTISED_URL"]
    assert urls == ["http://$(POD_NAME).headrace-workers.$(POD_NAMESPACE).svc:6066"]


def test_workers_are_not_root_and_write_to_their_disk_alone() -> None:
    worker = one(read(BASE), "StatefulSet")
    pod = worker["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"USER {pod['securityContext']['runAsUser']}:" in (ROOT / "Dockerfile").read_text()
    assert container(worker)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not pod["automountServiceAccountToken"]
    assert container(worker)["resources"]["limits"]["memory"]


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_every_setting_is_one_of_a_worker(overlay: str | None) -> None:
    folder = BASE if overlay is None else KUBERNETES / "overlays" / overlay
    assert unknown_variables(settings_of(folder)) == []
    secret = [name for name in settings_of(folder) if name.endswith(("PASSWORD", "_KEY"))]
    assert not secret, "secrets come as files"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_are_no_more_workers_than_partitions(overlay: str) -> None:
    folder = KUBERNETES / "overlays" / overlay
    partitions = int((settings_of(BASE) | settings_of(folder))["HEADRACE_PARTITIONS"])
    patched = yaml.safe_load((folder / "autoscaler-patch.yaml").read_text())["spec"]
    most = patched.get("maxReplicas", one(read(BASE), "HorizontalPodAutoscaler")["spec"]["maxReplicas"])
    assert most == partitions


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_patch_of_the_network_takes_nothing_away(overlay: str) -> None:
    """Lists are replaced by patches, not added to."""
    patch = yaml.safe_load((KUBERNETES / "overlays" / overlay / "network-patch.yaml").read_text())
    base = one(read(BASE), "NetworkPolicy")["spec"]["egress"]
    assert patch["spec"]["egress"][: len(base)] == base
    assert len(patch["spec"]["egress"]) > len(base), "a worker that reaches no Kafka"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_rendered_and_valid(overlay: str, tmp_path: Path) -> None:
    manifests = rendered(overlay, tmp_path)
    worker = one(manifests, "StatefulSet")
    [config] = [each["configMapRef"]["name"] for each in container(worker)["envFrom"]]
    [settings] = [each for each in manifests if each["kind"] == "ConfigMap" and each["metadata"]["name"] == config]
    assert settings["data"] == settings_of(BASE) | settings_of(KUBERNETES / "overlays" / overlay)
    for mounted in container(worker)["volumeMounts"]:
        names = [volume["name"] for volume in worker["spec"]["template"]["spec"]["volumes"]]
        assert mounted["name"] in [*names, "home"]
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all(manifests))
    done = subprocess.run(
        [Path(sys.executable).parent / "kubernetes-validate", "--strict", file],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
