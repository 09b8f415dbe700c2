"""Following the active version: which one a worker serves, and when it has to change to another.

The record of the active version flows in, from a thread that watches its topic; flows out: what a worker does about it. A
worker whose HEADRACE_VERSION is set keeps to that version, whatever the record says.
"""

import threading

import structlog
from confluent_kafka import KafkaError

from infra.settings import Settings
from topics.versions import Active, BadVersionRecord, read_active, taken, versions_consumer

log = structlog.get_logger(__name__)

POLL_S = 0.2
STOP_TIMEOUT_S = 5.0


class VersionSwitched(Exception):
    """Another version has taken over; a new life serves it."""


def followed(settings: Settings, bootstrap: str) -> tuple[Settings, Active | None]:
    """Settings with the version to serve, and the record of the active one. Raises as `read_active`."""
    if settings.version_is_set:
        return settings, None
    active = read_active(bootstrap, settings.app)
    return settings if active is None else settings.model_copy(update={"version": active.version}), active


class VersionWatch:
    """Watches the record while a worker lives.

    Parameters
    ----------
    settings : with the version that the worker serves
    pinned : HEADRACE_VERSION is set: say what is active, and stay
    """

    def __init__(self, settings: Settings, bootstrap: str, *, pinned: bool) -> None:
        self._settings, self._bootstrap, self._pinned = settings, bootstrap, pinned
        self._stop = threading.Event()
        self._active = settings.version
        self._thread = threading.Thread(target=self._run, name="version-watch", daemon=True)

    def switched(self) -> VersionSwitched | None:
        """Why the worker has to leave its version; None while it may stay."""
        if self._pinned or self._active == self._settings.version:
            return None
        return VersionSwitched(f"version {self._active} takes over from {self._settings.version}")

    def __enter__(self) -> "VersionWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        consumer = versions_consumer(self._bootstrap, self._settings.app)
        latest: Active | None = None
        try:
            while not self._stop.is_set():
                message = consumer.poll(POLL_S)
                error = None if message is None else message.error()
                if message is not None and error is None:
                    latest = _read(message.key(), message.value(), latest)
                elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                    self._take(latest)  # only at the end: what comes before has been replaced
                elif error is not None:
                    self._stop.wait(POLL_S)  # the client tries again by itself
        finally:
            consumer.close()

    def _take(self, latest: Active | None) -> None:
        active = Settings.model_fields["version"].default if latest is None else latest.version
        if active != self._active and self._pinned:
            log.warning(
                "another version is active; HEADRACE_VERSION keeps this worker to its own",
                active=active,
                version=self._settings.version,
            )
        self._active = active


def _read(key: bytes | None, value: bytes | None, before: Active | None) -> Active | None:
    """What a record says; one that cannot be read changes nothing while the worker serves."""
    try:
        return taken(key, value, before)
    except BadVersionRecord as error:
        log.error("the record of the active version is not understood; staying", reason=str(error))
        return before
