import numpy as np

from bench.brokerless import BrokerlessWorker
from ingestion.simulate import Audience
from state.engine import EngineOptions
from state.index_recall import recall
from topics.evidence import SHOWN

SCORES = np.array([5.0, 4.0, 3.0, 2.0, 2.0, 1.0], np.float32)


def test_recall_counts_what_is_among_the_exact_best() -> None:
    allowed = np.ones(6, np.bool_)
    assert recall(np.array([1, 0], np.int32), SCORES, allowed, 2) == 1.0
    assert recall(np.array([0, 5], np.int32), SCORES, allowed, 2) == 0.5
    assert recall(np.array([0, 0], np.int32), SCORES, allowed, 2) == 0.5, "a row named twice is one row"
    assert recall(np.empty(0, np.int32), SCORES, allowed, 2) == 0.0


def test_what_ties_with_the_last_counts_but_no_more_than_the_list_holds() -> None:
    allowed = np.ones(6, np.bool_)
    assert recall(np.array([0, 1, 2, 4], np.int32), SCORES, allowed, 4) == 1.0
    assert recall(np.array([0, 1, 2, 3, 4], np.int32), SCORES, allowed, 4) == 1.0


def test_what_is_not_allowed_is_neither_wanted_nor_counted() -> None:
    allowed = np.array([False, True, True, True, True, True])
    assert recall(np.array([1, 2], np.int32), SCORES, allowed, 2) == 1.0
    assert recall(np.array([0, 1], np.int32), SCORES, allowed, 2) == 0.5
    assert recall(np.array([1, 2], np.int32), SCORES, ~allowed, 100) == 0.0, "fewer rows than the list asks for"


def test_a_brokerless_worker_learns_what_it_is_given_and_its_evidence_reaches_the_owners() -> None:
    audience = Audience(seed=1, users=30, videos=60)
    worker = BrokerlessWorker(EngineOptions(partitions=4, max_users=100, max_videos=100))
    worker.publish(audience.videos())
    records = worker.records(audience.events(1_000))
    worker.learn(records[:700])
    worker.learn(records[700:])
    worker.checkpoint()
    totals = worker.engine.totals()
    assert totals["learned"] + totals["ignored"] == 1_000
    assert worker.engine.replica.counts[:, :SHOWN].sum() == 1_000
    firsts = [len(worker.engine.users.seen(slot)[worker.engine.users.seen(slot) % 2 == 1]) for slot in range(30)]
    assert worker.engine.popularity.columns["plays"].sum() == sum(firsts) > 0
