"""Imports go one way: a package imports those before it in `ORDER`, never those after."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("infra", "topics", "online_models", "state", "agents", "api", "ingestion", "cli")
# The composition root of a worker mounts the API on the app, and so imports what stands after it.
EXEMPT = {"agents/worker.py"}
SETTINGS = "infra.settings"
# Below the composition roots values are passed, not settings.
MAY_READ_SETTINGS = {"agents/worker.py", "infra/embedded_kafka.py", "infra/kafka_address.py"}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of each absolute import in `source`, those inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def broken_rules(package: str, file: str, source: str) -> list[str]:
    """Say for each import of `source` that goes the wrong way which rule it breaks."""
    rules = []
    for line, name in imported(source):
        target = name.split(".")[0]
        if target == "tests":
            rules.append(f"{file}:{line} imports {name}: the product never imports its tests")
        elif target in ORDER and ORDER.index(target) > ORDER.index(package) and file not in EXEMPT:
            rules.append(f"{file}:{line} imports {name}: {package} may import {ORDER[: ORDER.index(package)]} only")
        elif name.startswith(SETTINGS) and package != "cli" and file not in MAY_READ_SETTINGS:
            rules.append(f"{file}:{line} imports {name}: only agents/worker.py and cli/ read settings")
    return rules


@pytest.mark.parametrize("package", ORDER)
def test_no_import_goes_against_the_order(package: str) -> None:
    files = sources(package)
    assert files, f"{package} has no sources"
    broken = [
        rule
        for file in files
        for rule in broken_rules(package, file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(
    ("package", "source", "rule"),
    [
        ("topics", "import state.rows", "topics may import ('infra',) only"),
        ("online_models", "def f() -> None:\n    from agents import users", "online_models may import"),
        ("state", "from infra.settings import Settings", "only agents/worker.py and cli/ read settings"),
        ("cli", "from tests.conftest import bootstrap", "the product never imports its tests"),
    ],
)
def test_a_wrong_import_is_named_with_its_rule(package: str, source: str, rule: str) -> None:
    assert rule in broken_rules(package, f"{package}/new.py", source)[0]


def test_a_right_import_and_the_exempt_root_pass() -> None:
    assert broken_rules("agents", "agents/users.py", "import numpy\nfrom state import rows\nfrom . import items") == []
    assert (
        broken_rules("agents", "agents/worker.py", "from api import views\nfrom infra.settings import Settings") == []
    )


def test_no_package_stands_outside_the_order() -> None:
    outside = {"tests", "bench", "notebooks"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - outside == set(ORDER)
