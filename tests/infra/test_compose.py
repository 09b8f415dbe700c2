"""The stack of one machine: settings that exist, images that are pinned and the same everywhere, targets that are there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings import unknown_variables
from tests.containers import services
from tests.infra.manifests import KUBERNETES

ROOT = Path(__file__).parents[2]
#: Name and a version of two numbers at least; a registry's host has a dot before its first slash.
PINNED = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)?:v?\d+\.\d+(\.\d+)?(-\w+)*")
OURS = "headrace:local"


def test_all_that_is_needed_is_there() -> None:
    wanted = {"kafka", "redis", "worker-1", "worker-2", "prometheus", "grafana", "postgres", "mongo", "producer"}
    assert wanted <= services().keys()


@pytest.mark.parametrize("name", services())
def test_images_are_pinned_by_version(name: str) -> None:
    image = services()[name]["image"]
    assert image == OURS or PINNED.fullmatch(image), image


def test_the_clusters_images_are_the_same() -> None:
    used = {
        each["image"]
        for file in (KUBERNETES / "overlays" / "local").glob("*.yaml")
        for document in yaml.safe_load_all(file.read_text())
        for each in document.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
        if "image" in each
    }
    assert used == {services()["kafka"]["image"], services()["redis"]["image"]}


@pytest.mark.parametrize("name", services())
def test_ports_are_this_machines_own(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in services()[name].get("ports", []))


@pytest.mark.parametrize("name", ["worker-1", "worker-2", "producer", "keys"])
def test_every_variable_is_a_setting_and_nothing_runs_as_root(name: str) -> None:
    service = services()[name]
    assert unknown_variables(service["environment"]) == []
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    # Numba refuses to start where it can write nowhere.
    has_home = any(":/var/lib/headrace" in volume for volume in service["volumes"])
    assert has_home or service["environment"]["NUMBA_CACHE_DIR"].startswith("/tmp/")  # noqa: S108 - compared
    assert "user" not in service, "the image's own user"


def test_workers_differ_in_name_disk_and_port_alone() -> None:
    first, second = services()["worker-1"], services()["worker-2"]
    assert second["environment"].pop("HEADRACE_ADVERTISED_URL") == "http://worker-2:6066"
    assert first["environment"].pop("HEADRACE_ADVERTISED_URL") == "http://worker-1:6066"
    for name in ("ports", "volumes"):
        assert first.pop(name) != second.pop(name)
    assert first == second


def test_prometheus_scrapes_the_workers_where_they_tell_metrics() -> None:
    [job] = yaml.safe_load((ROOT / "infra/prometheus/prometheus.yml").read_text())["scrape_configs"]
    [targets] = [config["targets"] for config in job["static_configs"]]
    port = services()["worker-1"]["environment"]["HEADRACE_METRICS_PORT"]
    assert targets == [f"worker-1:{port}", f"worker-2:{port}"]
    # Alerts ask for the job by its name.
    assert job["job_name"] == "headrace"


def test_grafana_finds_its_data_source_and_the_dashboard() -> None:
    provisioning = ROOT / "infra/grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((provisioning / "dashboards/headrace.yml").read_text())["providers"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in services()["grafana"]["volumes"]}
    assert (ROOT / mounted[provider["options"]["path"]] / "headrace.json").exists()
    assert (ROOT / mounted["/etc/grafana/provisioning"]).resolve() == provisioning


def dockerfile(instruction: str) -> list[str]:
    found = re.findall(rf"^{instruction} (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return [str(each) for each in found]


def test_the_image_is_made_of_all_packages_and_what_it_copies_is_let_in() -> None:
    copied = [word.rstrip("/") for line in dockerfile("COPY") if "--from" not in line for word in line.split()[:-1]]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "notebooks"}
    assert packages <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} == {line for line in ignored if line.startswith("!")}


def test_the_image_has_a_user_a_health_check_and_one_base() -> None:
    assert dockerfile("USER") == ["10001:10001"]
    assert dockerfile("HEALTHCHECK")
    bases = [line.split()[0] for line in dockerfile("FROM")]
    assert len(set(bases)) == 1
    assert PINNED.fullmatch(bases[0]), bases[0]


def _environment() -> dict[str, Any]:
    text = (ROOT / "Dockerfile").read_text()
    return dict(re.findall(r"(HEADRACE_\w+)=(\S+)", text))


def test_the_images_own_settings_exist() -> None:
    assert unknown_variables(name for name in _environment() if name != "HEADRACE_WEB_PORT") == []
    assert _environment()["HEADRACE_WEB_HOST"] == "0.0.0.0"  # noqa: S104 - compared
