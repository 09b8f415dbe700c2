"""What is written down beside a snapshot: the configuration, what a worker has measured of its lists, and the release."""

import importlib.metadata
from typing import Any

import orjson

from cli.worker_client import WorkerClient, WorkerUnavailable, base_url
from infra.settings import Settings

#: Settings that shape what is learned and served. Named one by one, so that a secret that is added later is not among them.
CONFIGURATION = (
    *(
        "app",
        "version",
        "partitions",
        "checkpoint_interval_ms",
        "positives_per_day",
        "seed",
        "objective",
        "exploration",
    ),
    *("max_users", "max_videos", "future_tolerance_s", "scoring_share"),
)
#: Files whose contents are part of the configuration.
FILES = ("signals", "experiment")
MEASURES = ("headrace_online_", "headrace_served_below_baselines", "headrace_index_recall_ratio")
#: A worker that does not answer at once is not waited for: the measures are an extra.
ASK_TIMEOUT_S = 2.0


def configuration_of(settings: Settings) -> dict[str, Any]:
    """Settings of this command, which should be those of the workers; files as what is in them."""
    found: dict[str, Any] = {name: getattr(settings, name) for name in CONFIGURATION}
    for name in FILES:
        path = getattr(settings, name)
        found[name] = None if path is None else orjson.loads(path.read_bytes())
    return found


def online_metrics(settings: Settings) -> dict[str, float]:
    """What the worker at the settings' address measures; empty if none answers."""
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    client = WorkerClient(base_url(settings.web_host, settings.web_port), ASK_TIMEOUT_S, key)
    try:
        return client.gauges(MEASURES)
    except WorkerUnavailable:
        return {}
    finally:
        client.close()


def package_version() -> str:
    """The release of Headrace."""
    try:
        return importlib.metadata.version("headrace")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
