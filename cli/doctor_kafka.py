"""What `headrace doctor` asks of Kafka: the brokers, the topics, the version that serves and its group, the clocks.

Flows in: settings, and the address of brokers that answer. Flows out: findings. Always holds: nothing is created, joined or changed.
"""

import time
from collections.abc import Iterator

from cli.findings import Finding, fail, ok, warn
from infra.embedded_kafka import read_record
from infra.kafka_address import kafka_address
from infra.kafka_probe import Answer, ask, cluster_at
from infra.kafka_security import KafkaAddress, security_of
from infra.settings import Settings
from topics.cluster import TopicState, latest_arrival_ms, release, topic_states
from topics.groups import committed, log_bounds, members
from topics.recommendations import BadList, decode_list
from topics.specs import INTERACTIONS, RECOMMENDATIONS, TopicSpec, specs
from topics.versions import Active, read_active, versions_spec, versions_topic

#: For one question.
ANSWER_TIMEOUT_S = 5.0
#: Records that wait: seconds of work of one worker; more is a backlog.
MUCH_LAG = 20_000
#: Clocks that are kept by NTP differ by milliseconds.
CLOCK_S = 1.0
#: Older lists tell nothing of clocks now.
RECENT_S = 3600.0


class KafkaChecks:
    """The checks, in an order in which each knows what those before it found."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._address: KafkaAddress | str | None = None
        self._states: dict[str, TopicState] = {}
        self._brokers = 1
        self._serving = settings

    @property
    def serving(self) -> Settings:
        """The settings with the version that serves, as far as is known."""
        return self._serving

    @property
    def reached(self) -> bool:
        """Whether a broker answers; without one there is nothing else to ask."""
        return self._address is not None

    def broker(self) -> Iterator[Finding]:
        """Whether brokers answer, which, and how they are spoken to."""
        name = "broker"
        named = kafka_address(self._settings)
        if named is None:
            record = read_record(self._settings.home / "kafka")
            if not record or cluster_at(record["bootstrap"], ANSWER_TIMEOUT_S) != record["cluster_id"]:
                yield fail(
                    name,
                    f"KAFKA_BOOTSTRAP_SERVERS is not set, and no embedded broker runs in {self._settings.home}",
                    "name your brokers, or start `headrace worker` or `headrace broker`",
                )
                return
            address: KafkaAddress | str = str(record["bootstrap"])
            answer = Answer(record["cluster_id"], brokers=(record["bootstrap"],))
        else:
            address = named
            answer = ask(named, ANSWER_TIMEOUT_S)
            if answer.refused is not None:
                found, _, do = answer.refused.rpartition(": ")
                yield fail(name, found, do)
                return
            if answer.cluster_id is None:
                yield fail(
                    name,
                    f"no answer at {named} (KAFKA_BOOTSTRAP_SERVERS){answer.hint}",
                    "start it, or correct the variable",
                )
                return
        self._address, self._brokers = address, len(answer.brokers)
        yield ok(name, f"{address} answers: cluster {answer.cluster_id} of {len(answer.brokers)} broker(s)")

    def security(self) -> Iterator[Finding]:
        """How brokers are spoken to."""
        address = self._reached()
        security = security_of(address)
        user = f", user {security.username} by {security.mechanism}" if security.authenticates else ""
        local = all(
            part.strip().rpartition(":")[0] in ("127.0.0.1", "localhost", "[::1]") for part in address.split(",")
        )
        if security.encrypted or local:
            yield ok("security", f"Kafka by {security.protocol}{user}")
        else:
            yield warn(
                "security",
                f"Kafka by {security.protocol}{user}: whoever is on the way reads along",
                "set HEADRACE_KAFKA_SECURITY to 'sasl_ssl' or 'ssl' where the network is not trusted (docs/security.md)",
            )

    def release(self) -> Iterator[Finding]:
        """Which release the brokers are of."""
        at_least = release(self._reached(), ANSWER_TIMEOUT_S)
        if at_least in (None, "2.7"):
            yield warn(
                "kafka version", f"older than 3.1 (as {at_least or 'before 2.7'})", "3.1 or later names topics by ids"
            )
        else:
            yield ok("kafka version", f"{at_least} or later")

    def version(self) -> Iterator[Finding]:
        """Which version serves; its topics are looked at."""
        name, address, app = "version", self._reached(), self._settings.app
        active: Active | None = None
        if versions_topic(app) in topic_states(address, [versions_topic(app)], ANSWER_TIMEOUT_S):
            active = read_active(address, app)
        serving = Settings.model_fields["version"].default if active is None else active.version
        if not self._settings.version_is_set:
            self._serving = self._settings.model_copy(update={"version": serving})
            yield ok(name, f"{serving} is active" + ("" if active is None else f", since {_day(active.since_ms)}"))
        elif self._settings.version == serving:
            yield ok(name, f"{serving} is active, and HEADRACE_VERSION")
        else:
            yield warn(
                name,
                f"HEADRACE_VERSION={self._settings.version}, while {serving} is active",
                "unset it, unless this worker is to keep to that version",
            )

    def topics(self) -> Iterator[Finding]:
        """Whether the topics are as they have to be."""
        wanted = [
            *specs(self._serving.app, self._serving.version, self._serving.partitions),
            versions_spec(self._serving.app),
        ]
        self._states = topic_states(self._reached(), [spec.name for spec in wanted], ANSWER_TIMEOUT_S)
        missing = [spec.name for spec in wanted if spec.name not in self._states]
        if missing:
            yield fail("topics", f"missing: {', '.join(missing)}", "start a worker, which creates them, or create them")
        wrong = [finding for spec in wanted if spec.name in self._states for finding in self._differences(spec)]
        yield from wrong
        if not missing and not wrong:
            yield ok("topics", f"all {len(wanted)} as they have to be, {self._serving.partitions} partitions each")

    def _differences(self, spec: TopicSpec) -> Iterator[Finding]:
        state, name = self._states[spec.name], f"topic {spec.name}"
        if state.partitions != spec.partitions:
            do = "set HEADRACE_PARTITIONS" if spec.partitions > 1 else "create it anew"
            yield fail(name, f"{state.partitions} partitions, expected {spec.partitions}", f"{do}, or delete the topic")
        for key, expected in spec.config.items():
            if state.config.get(key) != expected:
                change = f"kafka-configs --alter --topic {spec.name} --add-config {key}={expected}"
                yield fail(name, f"{key}={state.config.get(key)}, expected {expected}", f"change it: {change}")
        if state.leaderless:
            yield fail(name, f"{state.leaderless} partitions have no leader", "start the brokers that have them")
        in_sync = int(state.config.get("min.insync.replicas", 1))
        if in_sync > state.replication:
            yield fail(
                name,
                f"min.insync.replicas={in_sync} of {state.replication} replicas: every write is refused",
                "lower it, or add replicas",
            )
        elif self._brokers > 1 and (state.replication < 2 or in_sync < 2):
            yield warn(
                name,
                f"{state.replication} replica(s), min.insync.replicas={in_sync}: one lost disk may lose what is learned",
                "3 replicas and min.insync.replicas=2",
            )
        if state.thin and not state.leaderless:
            yield warn(name, f"{state.thin} partitions have replicas that lag or are away", "see to those brokers")

    def group(self) -> Iterator[Finding]:
        """Who is in the group of the version that serves, and how far it has come."""
        address, group = self._reached(), self._serving.group
        count = members(address, group)
        if count:
            yield ok("group", f"{group} has {count} member(s)")
        else:
            yield warn("group", f"nobody is in {group}", "start `headrace worker`: nothing is learned or answered")
        partitions = self._serving.partitions
        if any(state.partitions != partitions for name, state in self._states.items() if name == INTERACTIONS):
            return  # said above; partitions that are not there cannot be asked for
        lows, highs = log_bounds(address, partitions)
        places = committed(address, group, partitions)
        lags = {
            topic: sum(high - max(places[topic].get(part, 0), lows[topic][part]) for part, high in ends.items())
            for topic, ends in highs.items()
        }
        told = ", ".join(f"{topic} {lag:,}" for topic, lag in lags.items())
        lost = [
            f"{INTERACTIONS}[{part}]"
            for part, place in places[INTERACTIONS].items()
            if place < lows[INTERACTIONS][part]
        ]
        if lost:
            yield fail(
                "lag", f"records were deleted before they were learned: {', '.join(lost)}", "set retention.ms=-1"
            )
        elif count and max(lags.values()) > MUCH_LAG:
            yield warn("lag", f"records to go: {told}", "more workers, up to one a partition, or wait, if it shrinks")
        elif not count and any(lags.values()):
            yield warn("lag", f"records to go: {told}", "they wait for a worker")
        else:
            yield ok("lag", f"records to go: {told}")

    def clock(self) -> Iterator[Finding]:
        """Whether this machine's clock, and that of who served last, agree with the brokers', as far as records tell."""
        name, now_ms = "clock", time.time() * 1000
        if INTERACTIONS not in self._states or RECOMMENDATIONS not in self._states:
            yield ok(name, "not compared: there are no records yet")
            return
        told = []
        for topic in (INTERACTIONS, RECOMMENDATIONS):
            latest = latest_arrival_ms(self._reached(), topic, self._states[topic].partitions, ANSWER_TIMEOUT_S)
            if latest is None:
                continue
            partition, offset, arrived_ms = latest
            ahead_s = (arrived_ms - now_ms) / 1000
            if ahead_s > CLOCK_S:
                yield fail(
                    name, f"this machine is {ahead_s:.1f} s behind the broker, or more ({topic})", "keep both by NTP"
                )
                return
            told.append(f"latest of {topic} {_ago(-ahead_s)} ago")
            if topic == RECOMMENDATIONS and -ahead_s < RECENT_S:
                off_s = self._server_ahead_s(partition, offset, arrived_ms)
                if off_s is not None and off_s > CLOCK_S:
                    yield fail(
                        name, f"the worker that served last is {off_s:.1f} s ahead of the broker", "keep both by NTP"
                    )
                    return
        yield ok(
            name, "not behind the broker's" + (f" ({', '.join(told)})" if told else ": no records to compare with")
        )

    def _server_ahead_s(self, partition: int, offset: int, arrived_ms: int) -> float | None:
        """How far the clock of a list's server was ahead of the broker's: a list arrives after it was served."""
        from cli.committed import record_at

        record = record_at(self._reached(), RECOMMENDATIONS, partition, offset, ANSWER_TIMEOUT_S)
        if record is None:
            return None
        try:
            served = decode_list(record.key(), record.value())[1]
        except BadList:
            return None
        return (served.at_ms - arrived_ms) / 1000

    def _reached(self) -> str:
        if self._address is None:
            raise ConnectionError("no broker answers")
        return self._address


def _day(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_ms / 1000))


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
