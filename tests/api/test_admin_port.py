"""A second door: with one, what needs the scope admin is answered there alone, and keys are asked for as before."""

import datetime
from pathlib import Path

import httpx
import pytest

from agents.worker import guard_of
from api.guard import Guard
from api.keys import SCHEMA, KeyList, KeyRing, Scope
from infra.kafka_probe import free_port
from infra.settings import Settings, SettingsError
from tests.api.guarded import HOST, GuardedThread


def test_what_is_for_admins_is_at_their_port_alone() -> None:
    port = free_port(HOST)
    with GuardedThread(Guard(admin=(HOST, port))) as running:
        inside = f"http://{HOST}:{port}"
        for path in ("/metrics", "/forgotten"):
            refused = httpx.get(running.url + path)
            assert (refused.status_code, refused.json()["error"]) == (404, "not_found")
            assert httpx.get(inside + path).status_code == 200
        for url in (running.url, inside):
            assert httpx.get(f"{url}/v1/trending").status_code == 200
            assert httpx.get(f"{url}/nowhere").status_code == 404
            assert httpx.post(f"{url}/v1/trending").status_code == 405
        assert httpx.get(f"{running.url}/readyz").json() == {"sees_figures": False}
        assert httpx.get(f"{inside}/readyz").json() == {"sees_figures": True}


def test_keys_are_asked_for_at_both_doors(tmp_path: Path) -> None:
    held, token = KeyList(SCHEMA).with_new("ops", {Scope.ADMIN}, datetime.date(2026, 1, 2))
    file = tmp_path / "keys.json"
    file.write_bytes(held.encode())
    port = free_port(HOST)
    with GuardedThread(Guard(keys=KeyRing(file), admin=(HOST, port))) as running:
        shown = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{running.url}/metrics", headers=shown).status_code == 404
        assert httpx.get(f"{running.url}/metrics").status_code == 404
        assert httpx.get(f"http://{HOST}:{port}/metrics").status_code == 401
        assert httpx.get(f"http://{HOST}:{port}/metrics", headers=shown).status_code == 200


def test_open_metrics_are_open_at_their_port_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(KeyList(SCHEMA).encode())
    port = free_port(HOST)
    with GuardedThread(Guard(keys=KeyRing(file), metrics_open=True, admin=(HOST, port))) as running:
        assert httpx.get(f"{running.url}/metrics").status_code == 404
        assert httpx.get(f"http://{HOST}:{port}/metrics").status_code == 200


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"metrics_port": 6066}, "HEADRACE_METRICS_PORT=6066 is HEADRACE_WEB_PORT"),
        ({"metrics_port": 7000, "metrics_host": "0.0.0.0"}, "HEADRACE_METRICS_HOST='0.0.0.0' can be reached by others"),  # noqa: S104
    ],
)
def test_a_door_that_cannot_be_is_named(values: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        guard_of(Settings(**values))
