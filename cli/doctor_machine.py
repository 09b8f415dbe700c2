"""What `headrace doctor` looks at on this machine: Python and its native packages, disks, stores, open files, the worker, Redis.

Flows in: settings. Flows out: findings. Always holds: nothing stays changed, a store that a worker has open is only read, and no
secret is in what is found.
"""

import asyncio
import errno
import importlib
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from redis.exceptions import RedisError

from agents.worker import OTHER_FILES, PARTITION_FILES, guard_of
from api.redis_client import close_redis, redis_client, refusal, shown
from cli.findings import Finding, fail, ok, warn
from cli.worker_client import WorkerClient, WorkerRefused, WorkerUnavailable, base_url
from infra.kafka_probe import is_free
from infra.settings import Settings
from state import rows
from state.errors import SchemaMismatch
from state.store import StoreCorrupt, peek

#: Modules with native parts, and the package that each is of: without one of them nothing runs, or (aiokafka) it crawls.
NATIVE = {
    "hnswlib": "hnswlib",
    "rocksdict": "rocksdict",
    "numba": "numba",
    "confluent_kafka.cimpl": "confluent-kafka",
    "aiokafka.record._crecords": "aiokafka",
    "cramjam": "cramjam",
    "msgspec": "msgspec",
    "orjson": "orjson",
    "pyarrow": "pyarrow",
    "numpy": "numpy",
}
FIRST, LAST = (3, 11), (3, 13)
#: A worker's stores are megabytes to a few gigabytes; a disk with less than the first is about to fail, the second to be seen to.
LEAST_FREE_BYTES, LITTLE_FREE_BYTES = 64 << 20, 1 << 30
WORKER_TIMEOUT_S = 3.0


def python() -> Iterator[Finding]:
    """Python, and what is compiled for it."""
    version = ".".join(map(str, sys.version_info[:3]))
    if not FIRST <= sys.version_info[:2] <= LAST:
        yield fail("python", version, "Headrace needs Python 3.11 to 3.13")
        return
    broken = []
    for module, package in NATIVE.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - a broken wheel raises anything
            broken.append(f"{package} ({type(error).__name__}: {error})")
    if broken:
        yield fail("python", f"{version}, cannot load {', '.join(broken)}", "install anew: `make setup` in a new .venv")
    else:
        told = ", ".join(
            f"{package} {metadata.version(package)}" for package in ("confluent-kafka", "aiokafka", "rocksdict")
        )
        yield ok("python", f"{version}, {len(NATIVE)} native packages load ({told})")


def disk(settings: Settings) -> Iterator[Finding]:
    """Whether the folder of the state can be written, and has room."""
    home = settings.home
    there = next(path for path in (home, *home.resolve().parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".headrace-doctor-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
    except OSError as error:
        do = "make room" if error.errno == errno.ENOSPC else "make it writable for this user, or set HEADRACE_HOME"
        yield fail("disk", f"{home} cannot be written: {error.strerror}", do)
        return
    usage = shutil.disk_usage(there)
    told = f"{home} can be written, {usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB free"
    if usage.free < LEAST_FREE_BYTES:
        yield fail("disk", told, "make room: a store that cannot be written stops the worker")
    elif usage.free < LITTLE_FREE_BYTES:
        yield warn("disk", told, "make room")
    else:
        yield ok("disk", told)


def stores(settings: Settings) -> Iterator[Finding]:
    """Whether the stores on this disk can be read by this release."""
    folder = settings.state_dir
    found = sorted(path for path in folder.glob("users-*") if (path / "CURRENT").exists())
    bad = False
    for path in found:
        try:
            data = peek(path, rows.CUT_KEY)
            if data is not None:
                rows.decode_cut(data)
        except (SchemaMismatch, StoreCorrupt) as error:
            bad = True
            yield fail(f"store {path.name}", str(error), "see above; what is in a store is in its changelog too")
    items = sorted(path for path in folder.glob("items-*") if (path / "CURRENT").exists())
    for path in items:
        try:
            peek(path, rows.CUT_KEY)
        except StoreCorrupt as error:
            bad = True
            yield fail(f"store {path.name}", str(error), "see above; what is in a store is in its changelog too")
    if not bad:
        size = sum(file.stat().st_size for path in (*found, *items) for file in path.glob("*"))
        yield ok("stores", f"{len(found) + len(items)} in {folder} can be read, {size / 1e6:.0f} MB")


def open_files(settings: Settings) -> Iterator[Finding]:
    """Whether as many files may be open as a worker needs."""
    wanted = OTHER_FILES + PARTITION_FILES * settings.partitions + settings.max_connections
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        yield ok("open files", f"{'any number' if hard == resource.RLIM_INFINITY else hard} allowed, {wanted} needed")
    else:
        yield warn(
            "open files",
            f"{hard} allowed, {wanted} needed: fewer connections are taken than HEADRACE_MAX_CONNECTIONS",
            f"`ulimit -n {wanted}`, or LimitNOFILE of the service",
        )


def worker(settings: Settings) -> Iterator[Finding]:
    """Whether the worker of these settings answers and is ready; where none does, whether its ports are free."""
    guard_of(settings)
    url = base_url(settings.web_host, settings.web_port)
    if is_free(settings.web_host, settings.web_port):
        yield fail("worker", f"none answers at {url}", "start `headrace worker`")
        host, port = settings.admin_host, settings.metrics_port
        if port is not None and not is_free(host, port):
            yield fail("port", f"{port} of {host} is in use by something else", "set HEADRACE_METRICS_PORT to another")
        return
    client = WorkerClient(url, WORKER_TIMEOUT_S)
    try:
        client.ask("GET", "/healthz")
        answer = client.ask("GET", "/readyz")
    except WorkerUnavailable as error:
        if "not ready" in str(error):
            yield warn(
                "worker", f"{url} is not ready: it recovers its shards, or waits for the group", "wait; see its log"
            )
        else:
            yield fail(
                "worker",
                f"something has port {settings.web_port} of {settings.web_host} and does not answer as a worker",
                "see its log; if it is no worker, set HEADRACE_WEB_PORT",
            )
        return
    except WorkerRefused as error:
        yield fail("worker", f"what answers at {url} is no worker: {error}", "set HEADRACE_WEB_PORT")
        return
    finally:
        client.close()
    owned = f", shards {answer['shards']}" if "shards" in answer else ""
    yield ok("worker", f"{url} is ready{owned}")


def redis(settings: Settings) -> Iterator[Finding]:
    """Whether Redis, if there is to be one, lets us in."""
    if settings.redis_url is None:
        yield ok("redis", "not used (REDIS_URL is not set)")
        return
    url = settings.redis_url.get_secret_value()
    password = None if settings.redis_password is None else settings.redis_password.get_secret_value()
    try:
        why = asyncio.run(_refusal(url, password, settings.redis_ca_file))
    except ValueError as error:
        yield fail("redis", f"REDIS_URL cannot be used: {error}", "correct it")
        return
    except (RedisError, OSError, TimeoutError):
        yield fail(
            "redis", f"no answer at {shown(url)}", "start it, correct REDIS_URL, or unset it: workers go on without"
        )
        return
    if why is None:
        yield ok("redis", f"{shown(url)} answers")
    else:
        found, _, do = why.rpartition(": ")
        yield fail("redis", f"{shown(url)}: {found}", do)


async def _refusal(url: str, password: str | None, ca_file: Path | None) -> str | None:
    client = redis_client(url, password, ca_file)
    try:
        return await refusal(client)
    finally:
        await close_redis(client)
