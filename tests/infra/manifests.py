"""Kubernetes' manifests as they are applied: the files of a folder, and overlays as Kustomize renders them."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "infra" / "kubernetes"
OVERLAYS = ("local", "aws")
Manifest = dict[str, Any]


def read(folder: Path) -> list[Manifest]:
    """All documents of a folder's resources."""
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    files = [folder / name for name in names if name.endswith(".yaml")]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def settings_of(folder: Path) -> dict[str, str]:
    """Variables that a folder's kustomization gives to workers."""
    found: dict[str, str] = {}
    for generator in yaml.safe_load((folder / "kustomization.yaml").read_text())["configMapGenerator"]:
        lines = list(generator.get("literals", []))
        for file in generator.get("envs", []):
            lines += [line for line in (folder / file).read_text().splitlines() if line and not line.startswith("#")]
        found |= dict(line.split("=", 1) for line in lines)
    return found


def one(manifests: list[Manifest], kind: str, name: str = "headrace-worker") -> Manifest:
    """The only manifest of a kind and name."""
    [found] = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def rendered(overlay: str, tmp_path: Path) -> list[Manifest]:
    """What `kubectl apply --kustomize` would apply; skips where neither kustomize nor kubectl is installed."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build"]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is installed: overlays are not rendered")
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    # The hashes of keys that an operator makes.
    (copy / "overlays" / "local" / "keys.json").write_text('{"schema": 1, "keys": []}')
    done = subprocess.run(
        [*command, str(copy / "overlays" / overlay)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))
