"""Terraform's files: all that is named is declared and told of, nothing is open to the world; and what Terraform itself says."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hcl2.api import load

AWS = Path(__file__).parents[2] / "infra" / "terraform" / "aws"
FILES = sorted(AWS.glob("*.tf"))
_REFERENCE = re.compile(r"(?<![\w.\"-])(data\.)?((?:aws|random)_[a-z0-9_]+)\.([a-z_0-9]+)")


def text_of(file: Path) -> str:
    return re.sub(r"^\s*#.*$", "", file.read_text(), flags=re.MULTILINE)


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[Any]]:
    """All files as one, as Terraform reads them."""
    found: dict[str, list[Any]] = {}
    for file in FILES:
        with file.open() as text:
            for kind, parts in load(text).items():
                if isinstance(parts, list):
                    found.setdefault(kind, []).extend(parts)
    return found


def plain(name: str) -> str:
    """Without the quotes that the reader keeps."""
    return name.strip('"')


def named(parts: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in parts:
        for name, body in part.items():
            if not name.startswith("__"):
                yield plain(name), body


def declared(parts: list[Any]) -> set[tuple[str, str]]:
    return {(kind, plain(name)) for kind, bodies in named(parts) for name in bodies if not name.startswith("__")}


def test_every_variable_and_output_says_what_it_is(blocks: dict[str, list[Any]]) -> None:
    for name, body in named(blocks["variable"]):
        assert body.get("description"), name
        assert body.get("type"), name
    for name, body in named(blocks["output"]):
        assert body.get("description"), name


def test_variables_are_used_and_used_ones_are_declared(blocks: dict[str, list[Any]]) -> None:
    text = "\n".join(text_of(file) for file in FILES)
    used = set(re.findall(r"\bvar\.([a-z_0-9]+)", text))
    assert used == {name for name, _ in named(blocks["variable"])}


def test_what_is_referred_to_is_declared(blocks: dict[str, list[Any]]) -> None:
    resources, data = declared(blocks["resource"]), declared(blocks["data"])
    referred = [match for file in FILES for match in _REFERENCE.findall(text_of(file))]
    assert len(referred) > 50
    unknown = {(kind, name) for of_data, kind, name in referred if (kind, name) not in (data if of_data else resources)}
    assert not unknown


def test_nothing_lets_the_world_in(blocks: dict[str, list[Any]]) -> None:
    kinds = {kind for kind, _ in declared(blocks["resource"])}
    assert not kinds & {"aws_security_group_rule", "aws_vpc_security_group_egress_rule"}
    rules = [body for kind, bodies in named(blocks["resource"]) if "ingress_rule" in kind for body in bodies.values()]
    assert rules
    assert all("cidr_ipv4" not in rule and "referenced_security_group_id" in rule for rule in rules)


def test_the_readme_names_every_output_that_an_overlay_needs() -> None:
    overlay = (AWS.parents[1] / "kubernetes" / "overlays" / "aws" / "kustomization.yaml").read_text()
    wanted = set(re.findall(r"\b(IMAGE_REPOSITORY|REDIS_HOST|SNAPSHOTS_BUCKET|AWS_REGION)\b", overlay))
    told = (AWS / "outputs.tf").read_text()
    assert wanted == {"IMAGE_REPOSITORY", "REDIS_HOST", "SNAPSHOTS_BUCKET", "AWS_REGION"}
    assert all(f"{name} of overlays/aws" in told for name in [*wanted, "KAFKA_BOOTSTRAP_SERVERS"])


def test_terraform_finds_it_formatted() -> None:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed")
    done = subprocess.run(
        [terraform, "fmt", "-check", "-diff", "-recursive", str(AWS)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
