"""The contract: all that is mounted is in the document, and whatever the document allows or forbids is answered as it says."""

import datetime
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.browse import BROWSE_ROUTES
from api.docs_page import page
from api.keys import SCHEMA, KeyList, Scope
from api.openapi import OPERATIONS, document
from api.views import ROUTES
from tests.agents.running_worker import HOST, RunningWorker
from tests.api.waiting import ready

METHODS = ("get", "post", "put", "delete", "patch")


def test_every_mounted_route_is_in_the_document_and_no_other() -> None:
    mounted = {
        (method, path)
        for path, view in {**ROUTES, **BROWSE_ROUTES}.items()
        for method in METHODS
        if method in vars(view) or _inherits(view, method)
    }
    assert mounted == {(each.method, each.path) for each in OPERATIONS}


def _inherits(view: type, method: str) -> bool:
    return any(method in vars(base) for base in view.__mro__ if base.__module__.startswith("api."))


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for path in document()["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names)


def test_every_reference_is_to_something() -> None:
    text = httpx.Response(200, json=document()).text
    named = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert named <= set(document()["components"]["schemas"])


def test_the_page_needs_nobody_else() -> None:
    made = page(document())
    assert not re.search(r"(src|href)=\"(?!#|/)", made)
    assert "<script" not in made
    for path in document()["paths"]:
        assert f"<code>{path}</code>" in made


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A key that may do everything, and the file that has it."""
    keys, token = KeyList(SCHEMA).with_new("tests", Scope, datetime.date(2026, 1, 1))
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_bytes(keys.encode())
    return token, path


@pytest.fixture(scope="module")
def worker(
    bootstrap: str, tmp_path_factory: pytest.TempPathFactory, token: tuple[str, Path]
) -> Iterator[RunningWorker]:
    folder = tmp_path_factory.mktemp("contract")
    with RunningWorker(bootstrap, folder, "contract-tests", api_keys=token[1]) as running:
        ready(running)
        headers = {"X-API-Key": token[0]}
        with httpx.Client(base_url=f"http://{HOST}:{running.port}", timeout=10, headers=headers) as http:
            for number in range(20):
                http.put(f"/v1/videos/v{number}", json={"title": f"film {number}", "categories": ["film"]})
            http.post(
                "/v1/events", json=[{"user_id": f"u{n}", "video_id": f"v{n}", "event": "like"} for n in range(10)]
            )
        yield running


@pytest.mark.broker
def test_every_operation_keeps_to_the_document(worker: RunningWorker, token: tuple[str, Path]) -> None:
    """Whatever fits the document and whatever does not, each operation alone and in sequences."""
    url = f"http://{HOST}:{worker.port}/openapi.json"
    config = Path(__file__).parent / "schemathesis.toml"
    ran = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(config), "--no-color", "run", url,
            "--checks", "all", "--max-examples", "25", "--generation-database", "none",
            "--header", f"Authorization: Bearer {token[0]}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-1000:]
    found = re.search(r"Operations: +(\d+) selected", ran.stdout)
    assert found is not None
    # All but the document itself, which has been read.
    assert int(found.group(1)) == len(OPERATIONS) - 1
    assert httpx.get(f"http://{HOST}:{worker.port}/readyz").json()["ready"]
