"""A worker dies at each point of the protocol; what the next one makes of it, against a recount of the log.

docs/exactly-once.md names these tests. A test kills a worker several times, each time at another point or another call, and
compares when the last one, which nobody kills, has come to the end of the log.
"""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.embedded_kafka import EmbeddedKafka
from ingestion.simulate import START_MS
from state.rows import CUT_KEY, Cut, decode_cut
from tests.agents.faults import Fault
from tests.agents.forgetful import recount_of
from tests.agents.lives import Life, Lives
from tests.agents.stage import PARTITIONS, USERS, Stage, interactions, simulate

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

STEP = "agents.users:step"
SWAP = "state.shard:Shard.swap"
PRODUCER = "aiokafka:AIOKafkaProducer."
SENDER = "aiokafka.producer.sender:"
WRITE = "state.store:RocksStore.write"
RELEASE = "agents.app:HeadraceApp._release"
LET_GO = "agents.expiry:_let_go"
TTL_DAYS, DAY_MS = 5, 86_400_000


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("broker")) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def stage(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Lives() as lives:
        yield Stage(kafka.bootstrap, lives, tmp_path_factory.mktemp("stage"))


@pytest.fixture(autouse=True)
def _nobody_stays(stage: Stage) -> Iterator[None]:
    yield
    stage.lives.end()


def die(stage: Stage, app: str, fault: Fault, **settings: Any) -> None:
    """One life that must end by the fault."""
    life = stage.start(app, fault, **settings)
    assert life.status() == -signal.SIGKILL, f"{fault} never came:\n{life.log[-3000:]}"
    assert str(fault) in life.log
    stage.evict(app)


def crash(stage: Stage, app: str, *faults: Fault) -> None:
    """One life a fault; then one without, to the end of the log."""
    before = stage.dead_letters()
    for fault in faults:
        die(stage, app, fault)
    stage.finish(app, stage.start(app), before)


def paused(life: Life) -> None:
    """Wait until the worker has stopped itself."""
    life.until(lambda: " T " in Path(f"/proc/{life.pid}/stat").read_text() or None, "not paused")


def test_while_learning(stage: Stage) -> None:
    """Step 5: what was learned since the last checkpoint is lost, and learned again."""
    crash(stage, "five", Fault(STEP, "after"), Fault(STEP, "after", nth=7), Fault("agents.items:step", "after", nth=2))


def test_around_the_swap(stage: Stage) -> None:
    """Step 6: buffers swapped, transaction begun, nothing sent."""
    crash(
        stage,
        "six",
        Fault(SWAP, "before", nth=2),
        Fault(SWAP, "after", nth=5),
        Fault(PRODUCER + "begin_transaction", "after", nth=1),
        Fault(PRODUCER + "begin_transaction", "after", nth=6),
    )


def test_while_sending(stage: Stage) -> None:
    """Step 7: some rows, blocks or letters are with the broker, or all of them."""
    crash(
        stage,
        "seven",
        Fault(PRODUCER + "send_batch", "before", nth=6),
        Fault(PRODUCER + "send_batch", "after", nth=5),
        Fault(PRODUCER + "send", "after", nth=9),
        Fault(SENDER + "AddPartitionsToTxnHandler.handle_response", "after", nth=4),
        Fault(SENDER + "SendProduceReqHandler.handle_response", "after", nth=11),
        Fault(PRODUCER + "send_offsets_to_transaction", "before", nth=4),
    )


def test_before_the_commit_is_accepted(stage: Stage) -> None:
    """Step 8, first half: positions are in the transaction, which nobody commits."""
    crash(
        stage,
        "eight",
        Fault(SENDER + "AddOffsetsToTxnHandler.handle_response", "after", nth=3),
        Fault(SENDER + "TxnOffsetCommitHandler.handle_response", "after", nth=4),
        Fault(PRODUCER + "commit_transaction", "before", nth=1),
        Fault(PRODUCER + "commit_transaction", "before", nth=5),
    )


def test_after_the_commit_is_accepted(stage: Stage) -> None:
    """Step 8, second half: the coordinator has it, the worker does not know, or has not gone on yet."""
    crash(
        stage,
        "accepted",
        *(Fault(SENDER + "EndTxnHandler.handle_response", "before", nth=nth) for nth in (1, 4, 7)),
        *(Fault(PRODUCER + "commit_transaction", "after", nth=nth) for nth in (2, 5)),
    )


def test_around_the_stores(stage: Stage) -> None:
    """Step 9: no store is written, one of the two, or both."""
    crash(
        stage,
        "nine",
        Fault(WRITE, "before", nth=3, once=SWAP),
        *(Fault(WRITE, "after", nth=nth, once=SWAP) for nth in (4, 7)),
        Fault("state.users:Users.unpin", "after", nth=4),
    )


def test_while_taking_over(stage: Stage) -> None:
    """Steps 1 to 4, with stores that lag and with none at all; and once more after each."""
    before = stage.dead_letters()
    die(stage, "over", Fault(PRODUCER + "commit_transaction", "after", nth=9))
    die(stage, "over", Fault("agents.checkpoint:ShardWriter.start", "before"))
    die(stage, "over", Fault("agents.checkpoint:ShardWriter.start", "after", nth=2))
    shutil.rmtree(stage.folder / "over" / "state")
    for fault in (
        Fault("agents.takeover:RocksStore", "after", nth=2),
        Fault("agents.takeover:check_store", "after", nth=1),
        Fault(WRITE, "after", nth=2),
        Fault("agents.takeover:tail", "after", nth=1),
        Fault("agents.takeover:check_cut", "after", nth=2),
        Fault("state.engine:Engine.add_shard", "before", nth=1),
        Fault("state.engine:Engine.add_shard", "after", nth=1),
        Fault("agents.transport:Consumer.perform_seek", "after", nth=1),
    ):
        die(stage, "over", fault)
    stage.finish("over", stage.start("over"), before)


#: All that is learned waits for the last checkpoint.
LATE_CONSTANTS = {"agents.app:PENDING_BYTES": 1 << 30}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(PRODUCER + "commit_transaction", "before", once=RELEASE),
        Fault(SENDER + "EndTxnHandler.handle_response", "before", once=RELEASE),
        Fault(WRITE, "after", once=RELEASE),
    ],
    ids=["uncommitted", "unseen", "between-stores"],
)
def test_in_the_last_checkpoint_of_a_revoked_shard(stage: Stage, fault: Fault, request: pytest.FixtureRequest) -> None:
    app = f"revoked-{request.node.callspec.id}"
    before = stage.dead_letters()
    first = stage.start(app, fault, constants=LATE_CONSTANTS, checkpoint_interval_ms=5_000)
    first.until(lambda: first.totals().get("learned") or None, "nothing learned")
    [member] = stage.members(app)
    second = stage.start(app, home="second")
    assert first.status() == -signal.SIGKILL
    stage.evict(app, keep=[m for m in stage.members(app) if m != member])
    stage.finish(app, second, before)


def test_in_the_last_checkpoint_of_a_worker_that_stops(stage: Stage) -> None:
    before = stage.dead_letters()
    life = stage.start(
        "stopping",
        Fault(SENDER + "EndTxnHandler.handle_response", once=RELEASE),
        constants=LATE_CONSTANTS,
        checkpoint_interval_ms=5_000,
    )
    life.until(lambda: life.totals().get("learned") or None, "nothing learned")
    life.signal(signal.SIGINT)
    assert life.status() == -signal.SIGKILL
    stage.evict("stopping")
    stage.finish("stopping", stage.start("stopping"), before)


def test_a_last_checkpoint_that_takes_too_long_ends_the_worker(stage: Stage) -> None:
    """Another worker may own the shard by then; this one starts anew."""
    before = stage.dead_letters()
    constants = {**LATE_CONSTANTS, "agents.app:REVOKE_TIMEOUT_S": 0.5}
    fault = Fault(PRODUCER + "commit_transaction", what="hang", once=RELEASE)
    first = stage.start("hanging", fault, constants=constants, checkpoint_interval_ms=5_000)
    first.until(lambda: first.totals().get("learned") or None, "nothing learned")
    second = stage.start("hanging", home="other")
    first.says("worker restarts")
    first.kill()
    stage.evict("hanging", keep=[])
    second.kill()
    stage.finish("hanging", stage.start("hanging", home="other"), before)


@pytest.mark.parametrize("point", ["begin_transaction", "send_offsets_to_transaction"])
def test_a_zombie_is_fenced(stage: Stage, point: str) -> None:
    """It sleeps with its transaction begun, or full; another worker does all the work; it wakes up."""
    app = f"zombie-{point[:5]}"
    before = stage.dead_letters()
    zombie = stage.start(app, Fault(PRODUCER + point, "after", "pause", nth=5))
    paused(zombie)
    stage.evict(app)
    other = stage.start(app, home="heir")
    other.until(lambda: other.totals().get("learned", 0) > 1_000 or None, "the heir learns nothing")
    zombie.signal(signal.SIGCONT)
    zombie.says("worker restarts")
    assert "Fenced" in zombie.log or "epoch" in zombie.log.lower(), zombie.log
    zombie.kill()
    stage.finish(app, other, before)


def test_a_transaction_that_timed_out(stage: Stage) -> None:
    """Nobody else takes over: the coordinator itself gives the transaction up while the worker sleeps."""
    before = stage.dead_letters()
    fault = Fault(PRODUCER + "send_offsets_to_transaction", "before", "pause", nth=4)
    life = stage.start("late", fault, constants={"agents.checkpoint:TRANSACTION_TIMEOUT_MS": 2_000})
    paused(life)
    time.sleep(4.5)
    stage.evict("late")
    life.signal(signal.SIGCONT)
    life.says("worker restarts")
    stage.finish("late", life, before)


def test_the_broker_dies_in_mid_transaction(stage: Stage, kafka: EmbeddedKafka) -> None:
    """Coordinator and log come back as they were on its disk; the worker goes on, or starts anew by itself."""
    before = stage.dead_letters()
    life = stage.start("broker", Fault(PRODUCER + "commit_transaction", "before", "pause", nth=4))
    paused(life)
    kafka.kill()
    assert kafka.start() == stage.bootstrap
    life.signal(signal.SIGCONT)
    stage.finish("broker", life, before)


ERRORS = (
    Fault(SWAP, "after", "raise", nth=3),
    Fault(PRODUCER + "begin_transaction", "before", "raise", nth=3),
    Fault(PRODUCER + "send_batch", "after", "lose", nth=4),
    Fault(PRODUCER + "send", "after", "lose", nth=5),
    Fault(PRODUCER + "send_offsets_to_transaction", "after", "raise", nth=2),
    Fault(PRODUCER + "commit_transaction", "before", "raise", nth=2, error="aiokafka.errors:KafkaTimeoutError"),
    Fault(PRODUCER + "commit_transaction", "after", "raise", nth=2),
    Fault(WRITE, "after", "raise", nth=1, once=SWAP),
)


def test_an_error_in_a_checkpoint_is_answered_by_a_new_life(stage: Stage) -> None:
    """In place of a death: each must stop the worker and say why. The last one goes on by itself."""
    before = stage.dead_letters()
    for fault in ERRORS:
        life = stage.start("errors", fault)
        life.says("worker restarts")
        [said] = [line for line in life.log.splitlines() if "the worker stops" in line]
        assert fault.error.rpartition(":")[2] in said or "KafkaTimeoutError" in said
        if fault is not ERRORS[-1]:
            life.kill()
            stage.evict("errors")
    stage.finish("errors", life, before)


def test_while_users_expire(stage: Stage) -> None:
    """Step 6, where rows of expired users are looked for: tombstones not sent yet, committed, and in one store of two."""
    # Last, for the log is another one from here on: some come back after a month, and most do not.
    stage.append(simulate(8, 400, START_MS + 30 * DAY_MS))
    stage.recount = recount_of(interactions(stage.log), PARTITIONS, TTL_DAYS)
    assert 10 < len(stage.recount.users) < USERS - 30
    before = stage.dead_letters()
    for fault in (
        Fault(LET_GO, "after", nth=2),
        Fault(PRODUCER + "commit_transaction", "after", once=LET_GO),
        Fault(WRITE, "after", once=LET_GO),
    ):
        die(stage, "expiry", fault, user_ttl_days=TTL_DAYS)
    life = stage.start("expiry", user_ttl_days=TTL_DAYS)
    stage.caught_up(life)
    life.until(lambda: not any(cut.swept[1] is not None for cut in cuts(stage, "expiry")) or None, "rows are not swept")
    stage.finish("expiry", life, before)


def cuts(stage: Stage, app: str) -> list[Cut]:
    return [decode_cut(row) for (_, key), row in stage.table(app, "users").items() if key == CUT_KEY]
