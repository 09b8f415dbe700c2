"""The producers in `examples/` are run against the real broker, and what they send is what a worker takes.

JavaScript needs Node.js, npm and a package from npm's registry; the command line needs kcat and jq, which `.ci/run` installs. Where
these are not at hand, the test is skipped and says so.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from topics.dead_letter import dead_letter
from topics.interactions import Interaction, decode
from topics.rejected import Reason, Rejected

pytestmark = pytest.mark.broker
EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "producers"
EVENTS = EXAMPLES / "events.jsonl"
#: No power of two: clients whose hash has another sign agree with Kafka's by chance where it is one.
PARTITIONS = 7
TIMEOUT_S = 60.0
#: Ids of each length modulo four, with bytes above 127, so that each branch of the hash is taken.
USERS = ["a", "ab", "abc", "abcd", "abcde", "Zoë", "用户", "é" * 64, "x" * 127, *(f"user-{i}" for i in range(40))]
#: A producer, as a command that is given its variables and runs in a folder.
Run = Callable[[dict[str, str], str], "subprocess.CompletedProcess[str]"]


def call(command: list[str], folder: Path, variables: dict[str, str], stdin: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its package installed, in a folder of its own."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "produce.js"):
        shutil.copyfile(EXAMPLES / "javascript" / name, folder / name)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
    try:
        done = call(command, folder, {}, "")
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer")
    if done.returncode:
        pytest.skip(f"npm cannot install the package: {done.stderr.strip()[-300:]}")
    return folder


def kcat_or_skip() -> None:
    for program in ("kcat", "jq"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: on Debian and Ubuntu, apt-get install kcat jq")


@pytest.fixture(params=["python", "javascript", "kcat"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Each of the producers."""
    if request.param == "python":
        return lambda variables, stdin: call(
            [sys.executable, str(EXAMPLES / "python" / "produce.py")], tmp_path, variables, stdin
        )
    if request.param == "javascript":
        folder = request.getfixturevalue("javascript")
        return lambda variables, stdin: call(["node", "produce.js"], folder, variables, stdin)
    kcat_or_skip()
    return lambda variables, stdin: call([str(EXAMPLES / "kcat" / "produce.sh")], tmp_path, variables, stdin)


@pytest.fixture
def topic(bootstrap: str) -> str:
    """A topic as `interactions` is, of the test's own."""
    name = f"examples-{uuid.uuid4().hex}"
    config = {"message.timestamp.type": "LogAppendTime"}
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, PARTITIONS, 1, config=config)])[name].result(30)
    return name


def records(bootstrap: str, topic: str, count: int) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found: list[Message] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(found) < count and time.monotonic() < deadline:
        found += [message for message in consumer.consume(count, 1.0) if message.error() is None]
    # and nothing more than that
    found += consumer.consume(1, 0.5)
    consumer.close()
    return found


def taken(message: Message) -> Interaction:
    """What a worker would take, or Rejected."""
    kind, arrival_ms = message.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME
    partition = message.partition()
    assert partition is not None
    return decode(
        message.key(),
        message.value(),
        arrival_ms,
        partition=partition,
        partitions=PARTITIONS,
        future_tolerance_ms=600_000,
    )


def test_a_worker_takes_every_event_that_is_sent(bootstrap: str, topic: str, run: Run) -> None:
    events = [{"user_id": user, "video_id": f"v{n}", "event": "like"} for n, user in enumerate(USERS)]
    given = {"event_id": "mine", "user_id": "ann", "video_id": "v", "event": "watch", "at_ms": 5, "watch_seconds": 1.5}
    # nested, escaped, in an order that would show if events of one user were sent out of order
    odd = {
        "user_id": "ann",
        "video_id": "a\tb",
        "event": "skip",
        "context": {"text": 'a "b"\n', "ratio": 0.5, "on": True},
    }
    stdin = "\n".join(json.dumps(event, ensure_ascii=False) for event in [*events, given, odd]) + "\n\n"
    began_ms = time.time_ns() // 1_000_000
    done = run({"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "TOPIC": topic}, stdin)
    assert done.returncode == 0, done.stdout + done.stderr
    found = list(map(taken, records(bootstrap, topic, len(USERS) + 2)))
    by_user = {event.user_id: event for event in found if event.user_id != "ann"}
    assert by_user.keys() == set(USERS)
    assert {by_user[str(event["user_id"])].video_id for event in events} == {f"v{n}" for n in range(len(USERS))}
    assert len({event.event_id for event in found}) == len(found) == len(USERS) + 2
    ended_ms = time.time_ns() // 1_000_000
    assert all(began_ms - 1_000 <= event.at_ms <= ended_ms + 1_000 for event in by_user.values())
    first, second = (event for event in found if event.user_id == "ann")
    assert (first.event_id, first.at_ms, first.watch_seconds) == ("mine", 5, 1.5)
    assert (second.video_id, second.context) == ("a\tb", odd["context"])


def test_events_of_the_example_are_taken(bootstrap: str, topic: str, run: Run) -> None:
    lines = EVENTS.read_text(encoding="utf-8")
    done = run({"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "TOPIC": topic}, lines)
    assert done.returncode == 0, done.stdout + done.stderr
    count = len(lines.splitlines())
    assert len(list(map(taken, records(bootstrap, topic, count)))) == count


def test_what_is_not_taken_is_an_error(bootstrap: str, run: Run) -> None:
    """A name that no topic can have: brokers refuse it at once."""
    done = run({"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "TOPIC": "no/topic"}, EVENTS.read_text(encoding="utf-8"))
    assert done.returncode != 0, done.stdout


def test_without_murmur2_a_worker_would_refuse_events(bootstrap: str, topic: str) -> None:
    """What the examples set is needed: librdkafka's default puts users elsewhere."""
    kcat_or_skip()
    lines = "".join(
        f'{user}\t{{"event_id":"e","user_id":"{user}","video_id":"v","event":"like","at_ms":1}}\n' for user in USERS
    )
    done = call(["kcat", "-P", "-b", bootstrap, "-t", topic, "-K", "\t"], EXAMPLES, {}, lines)
    assert done.returncode == 0, done.stderr
    refused = []
    for message in records(bootstrap, topic, len(USERS)):
        try:
            taken(message)
        except Rejected as error:
            refused.append(error.reason)
    assert set(refused) == {Reason.WRONG_PARTITION}
    assert len(refused) > len(USERS) / 2


def test_kcat_shows_why_an_event_was_refused(bootstrap: str, topic: str) -> None:
    kcat_or_skip()
    why = Rejected(Reason.UNKNOWN_EVENT, "'lik' is none of them")
    letter = dead_letter(b"ann", b'{"event":"lik"}', why, topic="interactions", partition=1, offset=7)
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, letter.value, letter.key, headers=list(letter.headers))
    assert producer.flush(30) == 0
    done = call(["kcat", "-C", "-e", "-q", "-b", bootstrap, "-t", topic, "-f", "%h %k %s\\n"], EXAMPLES, {}, "")
    assert done.returncode == 0, done.stderr
    assert "headrace.reason=unknown_event" in done.stdout
    assert 'ann {"event":"lik"}' in done.stdout
