"""What a version has committed, read beside the worker that goes on."""

from cli.committed import latest, read_committed
from infra.settings import Settings
from topics.specs import changelog_topic

Rows = dict[tuple[int, bytes], bytes]


def committed_rows(settings: Settings, bootstrap: str, version: str) -> Rows:
    """Rows of both tables of a version."""
    rows: Rows = {}
    for table in ("users", "items"):
        rows |= latest(read_committed(bootstrap, changelog_topic(settings.app, version, table)))
    return rows
