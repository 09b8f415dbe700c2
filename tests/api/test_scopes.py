"""The table of scopes has every route that a worker mounts, and no other."""

from pathlib import Path
from typing import cast

import pytest

from agents.worker import create_app
from api.connections import GuardedRunner
from api.guard import WebServer
from api.keys import Scope
from api.scopes import NEEDED, OPEN, needed
from infra.settings import Settings


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Method and pattern of every route of a worker, Faust's own included."""
    app = create_app(Settings(home=tmp_path_factory.mktemp("scopes")), "127.0.0.1:1")
    web = cast("WebServer", app.web)
    web.init_server()
    routes = web.web_app.router.routes()
    return {(route.method, route.resource.canonical) for route in routes if route.resource is not None}


def test_every_route_is_in_the_table(mounted: set[tuple[str, str]]) -> None:
    assert len(mounted) > 10
    forgotten = {(method, pattern) for method, pattern in mounted if method != "HEAD"} - set(NEEDED)
    assert not forgotten, f"say in api/scopes.py which scope {sorted(forgotten)} need; until then it is admin"


def test_the_table_has_nothing_that_is_not_there(mounted: set[tuple[str, str]]) -> None:
    assert set(NEEDED) <= mounted


def test_only_what_says_whether_it_runs_is_open() -> None:
    assert {route for route, scope in NEEDED.items() if scope is OPEN} == {
        ("GET", path) for path in ("/", "/page/{name}", "/docs", "/openapi.json", "/healthz", "/readyz")
    }


def test_whoever_changes_something_needs_more_than_read() -> None:
    for (method, pattern), scope in NEEDED.items():
        if method in ("PUT", "DELETE") or pattern == "/v1/events":
            assert scope is Scope.WRITE


def test_head_is_as_get_and_what_was_forgotten_is_closed() -> None:
    assert needed("HEAD", "/v1/trending") is Scope.READ
    assert needed("GET", "/v1/new-and-forgotten") is Scope.ADMIN
    # Of a route with a view for another method.
    assert needed("DELETE", "/v1/trending") is Scope.ADMIN


def test_settings_reach_the_worker_and_what_it_mounts_is_guarded(tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path, max_connections=7), "127.0.0.1:1")
    web = cast("WebServer", app.web)
    assert isinstance(web._runner, GuardedRunner)
    assert web._runner._limits.most == 7
    assert len(web.web_app.middlewares) == 3
