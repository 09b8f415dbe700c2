"""The jars of Apache Kafka's broker: resolved once from Maven Central, then read from a cache of this user.

A cache folder flows in, a class path flows out. It always holds that a folder under its final name is complete:
jars are fetched into a folder beside it, which is renamed in one step. Later calls open no connection.
"""

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

KAFKA = "org.apache.kafka:kafka_2.13:4.1.0"
# The broker's pom brings the logging API only; without a binding of its version the broker's log stays empty.
LOGGING = "org.slf4j:slf4j-simple:1.7.36"
MANIFEST = "jars.json"
MANIFEST_SCHEMA = 1
DOWNLOAD_TIMEOUT_S = 60

Fetch = Callable[[Path], list[Path]]
log = structlog.get_logger(__name__)


class JarsUnavailableError(RuntimeError):
    """Kafka's jars are not in the cache and could not be downloaded."""


def cache_dir() -> Path:
    """Folder for what is downloaded once a user: `$XDG_CACHE_HOME/headrace`, or `~/.cache/headrace`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace"


def kafka_jars(cache: Path, fetch: Fetch | None = None) -> list[Path]:
    """Return the broker's jars in class path order, downloading them (45 MB) if `cache` has no complete set.

    Parameters
    ----------
    cache : folder that outlives the process; created if need be
    fetch : downloads into a folder and returns the jars there; Maven Central by default

    Raises
    ------
    JarsUnavailableError
        Nothing usable in the cache, and the download failed.
    """
    final = cache / KAFKA.replace(":", "-")
    jars = _complete(final)
    if jars:
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    log.info("kafka.download", what=KAFKA, into=str(final))
    partial = Path(tempfile.mkdtemp(prefix="kafka-partial-", dir=cache))
    try:
        _install((fetch or fetch_from_maven)(partial / "repository"), partial / "jars")
        if not _complete(final):  # else another process was faster, and may be running from it
            shutil.rmtree(final, ignore_errors=True)
            (partial / "jars").rename(final)
    except Exception as error:
        raise JarsUnavailableError(
            f"cannot fetch {KAFKA} into {cache}: {error}. Check the connection and start again, "
            "or set KAFKA_BOOTSTRAP_SERVERS to a broker of your own"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _complete(final)


def fetch_from_maven(repository: Path, coordinates: Sequence[str] = (KAFKA, LOGGING)) -> list[Path]:
    """Resolve artifacts and their runtime dependencies with jgo (no Maven needed) and download their jars."""
    from jgo.maven import MavenContext  # slow to import, and needed once a machine

    context = MavenContext(repo_cache=repository, timeout=DOWNLOAD_TIMEOUT_S)
    inputs, transitive = context.resolver.resolve([context.create_dependency(name) for name in coordinates])
    wanted = [*inputs, *(dependency for dependency in transitive if dependency.scope in ("compile", "runtime"))]
    return [dependency.artifact.resolve() for dependency in wanted]


def _install(jars: list[Path], folder: Path) -> None:
    """Move `jars` into `folder` and write their names and sizes, in order; a jar cut short is an error."""
    folder.mkdir()
    entries = []
    for jar in jars:
        if not zipfile.is_zipfile(jar):
            raise OSError(f"{jar.name} arrived damaged")
        entries.append({"name": jar.name, "size_bytes": jar.stat().st_size})
        jar.replace(folder / jar.name)
    manifest = {"schema": MANIFEST_SCHEMA, "kafka": KAFKA, "jars": entries}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def _complete(folder: Path) -> list[Path]:
    """Jars of `folder` if all that its manifest lists are there with their sizes, else an empty list."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["schema"] != MANIFEST_SCHEMA:
            return []
        jars = [folder / entry["name"] for entry in manifest["jars"]]
        sizes = [entry["size_bytes"] for entry in manifest["jars"]]
        return jars if [jar.stat().st_size for jar in jars] == sizes else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
