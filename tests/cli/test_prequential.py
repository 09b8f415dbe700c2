"""The evaluation's protocol: nothing is known before its time, and nothing is counted twice."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.arms import DEFAULT
from cli.main import app
from cli.prequential import BATCH, Evaluator, Result
from ingestion.event_table import EventTable, NothingPositive
from ingestion.simulate import Audience
from ingestion.source import read_event_table
from topics.catalog import Video
from topics.interactions import EVENTS

DAY_MS = 86_400_000
Row = tuple[str, str, str, int, float | None]


def write(path: Path, rows: list[Row]) -> Path:
    """A canonical file: user, video, event, time and watched seconds."""
    lines = [
        json.dumps({"user_id": u, "video_id": v, "event": e, "at_ms": t, **({} if w is None else {"watch_seconds": w})})
        for u, v, e, t, w in rows
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def table_of(tmp_path: Path, rows: list[Row]) -> EventTable:
    return read_event_table(write(tmp_path / "events.jsonl", rows))


def run(
    table: EventTable, rule: str = "default", videos: tuple[tuple[str, Video], ...] = (), **options: float
) -> Result:
    return Evaluator(table, videos, table.positive(rule), **options).run()  # type: ignore[arg-type] # numbers as given


def simulated(tmp_path: Path, n: int = 3_000) -> EventTable:
    rows: list[Row] = [
        (e.user_id, e.video_id, e.event, e.at_ms, e.watch_seconds)
        for e in Audience(seed=5, users=60, videos=80).events(n)
    ]
    return table_of(tmp_path, rows)


def test_every_first_positive_after_the_warm_up_is_ranked_once(tmp_path: Path) -> None:
    rows: list[Row] = [(f"u{n % 7}", f"v{n % 5}", "like", DAY_MS + n * 1000, None) for n in range(70)]
    result = run(table_of(tmp_path, rows), warmup=0.2)
    assert {len(places) for places in result.positions.arms.values()} == {28}  # 35 pairs, each liked twice
    assert run(table_of(tmp_path, rows), warmup=0.2, rank_every=4).n == 7
    assert 0 < sum(result.positions.cold) < 28


def popular_then(*last: Row) -> list[Row]:
    """A video that many like, and at the end what `last` says."""
    liked: list[Row] = [(f"u{n}", "hit", "like", DAY_MS + n * 1000, None) for n in range(20)]
    return [*liked, *last]


def hits(tmp_path: Path, *last: Row) -> int:
    result = run(table_of(tmp_path, popular_then(*last)), "like", warmup=0.95)
    assert result.n == 2
    return int(result.positions.hits("popularity").sum())


def test_the_row_being_ranked_does_not_make_its_own_video_seen(tmp_path: Path) -> None:
    at_ms = 2 * DAY_MS
    assert (
        hits(
            tmp_path,
            ("new", "hit", "impression", at_ms, None),
            ("new", "hit", "watch", at_ms, 1.0),
            ("new", "hit", "like", at_ms, None),
        )
        == 2
    )


def test_a_video_watched_before_is_no_longer_offered(tmp_path: Path) -> None:
    at_ms = 2 * DAY_MS
    assert hits(tmp_path, ("new", "hit", "watch", at_ms - 1, 1.0), ("new", "hit", "like", at_ms, None)) == 1
    assert hits(tmp_path, ("new", "hit", "dislike", at_ms - 1, None), ("new", "hit", "like", at_ms, None)) == 1
    assert hits(tmp_path, ("new", "hit", "impression", at_ms - 1, None), ("new", "hit", "like", at_ms, None)) == 2


def test_the_future_changes_nothing(tmp_path: Path) -> None:
    rows: list[Row] = [
        (e.user_id, e.video_id, e.event, e.at_ms, e.watch_seconds)
        for e in Audience(seed=5, users=60, videos=80).events(3_000)
    ]
    whole = table_of(tmp_path, rows)
    half = table_of(tmp_path, rows[:2_000])

    def positions(table: EventTable, warm: int) -> list[int]:
        evaluator = Evaluator(table, (), table.positive(), warmup=0.0)
        evaluator._warm_n = warm
        return evaluator.run().positions.arms["served"]

    first = positions(half, 100)
    assert positions(whole, 100)[: len(first)] == first
    assert any(place >= 0 for place in first)


def test_a_video_is_in_the_catalogue_from_its_publication_or_first_event(tmp_path: Path) -> None:
    rows: list[Row] = [(f"u{n}", f"v{n}", "like", DAY_MS + n * 1000, None) for n in range(10)]
    assert sum(run(table_of(tmp_path, rows), warmup=0.0).positions.new) == 10
    published = tuple((f"v{n}", Video(published_ms=DAY_MS)) for n in range(10))
    assert sum(run(table_of(tmp_path, rows), videos=published, warmup=0.0).positions.new) == 0
    later = tuple((f"v{n}", Video(published_ms=3 * DAY_MS)) for n in range(10))
    assert sum(run(table_of(tmp_path, rows), videos=later, warmup=0.0).positions.new) == 10


def test_what_is_served_is_better_than_popularity_where_tastes_differ(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows: list[Row] = []
    for n in range(1_500):
        user = int(rng.integers(0, 100))
        rows.append((f"u{user}", f"v{int(rng.integers(0, 30)) * 4 + user % 4}", "like", DAY_MS + n * 60_000, None))
    result = run(table_of(tmp_path, rows))
    assert result.positions.hits("served").sum() > 1.5 * result.positions.hits("popularity").sum()


def two_kinds(tmp_path: Path) -> tuple[Path, Path]:
    """Users who come once and like what their kind likes, and what is known of them."""
    rng = np.random.default_rng(5)
    rows: list[Row] = [
        (f"u{user}", f"v{int(rng.integers(0, 12)) * 2 + user % 2}", "like", DAY_MS + user * 60_000, None)
        for user in range(800)
    ]
    users = tmp_path / "users.csv"
    users.write_text("user_id,country\n" + "".join(f"u{user},{('no', 'it')[user % 2]}\n" for user in range(800)))
    return write(tmp_path / "events.jsonl", rows), users


def test_what_is_known_of_users_counts_in_their_first_lists(tmp_path: Path) -> None:
    events, users = two_kinds(tmp_path)
    found = {}
    for name, more in (("blind", []), ("told", ["--users", str(users)])):
        command = ["evaluate", "--events", str(events), "--json", "--k", "5", "--arms", "segment", *more]
        ran = CliRunner().invoke(app, command)
        assert ran.exit_code == 0, ran.output
        found[name] = json.loads(ran.stdout)["cold"]
    assert found["blind"]["n"] == found["told"]["n"] == 560
    for arm in ("served", "segment"):
        blind, told = (found[name]["arms"][arm]["recall@5"] for name in ("blind", "told"))
        assert told > 1.5 * blind > 0.0, arm


def test_young_targets_are_known_and_hardly_played(tmp_path: Path) -> None:
    likes: list[Row] = [(f"u{n}", "hit", "like", DAY_MS + n * 1000, None) for n in range(8)]
    result = run(table_of(tmp_path, likes), warmup=0.0)
    assert result.positions.new == [True] + [False] * 7
    assert result.positions.young == [False] + [True] * 4 + [False] * 3
    assert result.to_json()["young"] == result.positions.group(np.array(result.positions.young))


def test_without_exploration_lists_are_the_rankings_alone(tmp_path: Path) -> None:
    table = simulated(tmp_path)
    unplayed = tuple((f"new{n}", Video(published_ms=DAY_MS)) for n in range(5))

    def placed(exploration: float) -> list[int]:
        return run(table, videos=unplayed, exploration=exploration).positions.arms["served"]

    plain, explored = placed(0.0), placed(1.0)
    assert plain != explored
    # The first nine places are the same, the last one is an exploring video's.
    assert [place if place < 9 else -1 for place in plain] == explored


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    table = simulated(tmp_path)
    assert run(table).positions == run(table).positions


def late(table: EventTable, **lags: int) -> Evaluator:
    evaluator = Evaluator(table, [], table.positive(), **lags)  # type: ignore[arg-type] # numbers as given
    evaluator.run()
    return evaluator


@pytest.mark.parametrize("lag", [0, 40])
def test_what_all_users_share_is_as_far_behind_as_it_is_told(tmp_path: Path, lag: int) -> None:
    table = simulated(tmp_path, 1_200)
    behind = late(table, lag=lag, evidence_lag=300)
    # At the end every event is learned, and the evidence of the last 300 less those of the lag is still under way.
    known = int(behind.engine.replica.counts[:, : len(EVENTS)].sum())
    assert 1_200 - 300 - BATCH <= known <= 1_200 - 300 + lag
    assert int(behind.engine.users.counts.sum()) == 1_200
    blind = late(table, lag=lag, evidence_lag=10**9)
    assert blind.engine.popularity.columns["plays"].sum() == 0
    assert int(blind.engine.users.counts.sum()) == 1_200


def test_evidence_that_is_no_later_than_the_list_changes_nothing(tmp_path: Path) -> None:
    table = simulated(tmp_path, 1_200)
    assert late(table, lag=40, evidence_lag=40).result.positions == late(table, lag=40).result.positions
    assert late(table, lag=40, evidence_lag=40).result.evidence_lag == 40


def test_a_log_without_positives_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NothingPositive):
        run(table_of(tmp_path, [("u", "v", "impression", DAY_MS, None)]))


def test_json_is_one_object_on_stdout(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", popular_then(("new", "hit", "like", 2 * DAY_MS, None)))
    ran = CliRunner().invoke(app, ["evaluate", "--events", str(path), "--json", "--k", "5"])
    assert ran.exit_code == 0, ran.output
    body = json.loads(ran.stdout)
    assert set(body) >= {"n", "arms", "cold", "warm", "young", "learn_us", "rank_us"}
    assert set(body["arms"]) == set(DEFAULT)
    assert set(body["arms"]["served"]) == {"recall@5", "ndcg@5", "mrr", "precision@5", "se", "seed_sd"}


def test_the_share_of_exploring_lists_is_an_option(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", popular_then(("new", "hit", "like", 2 * DAY_MS, None)))
    command = ["evaluate", "--events", str(path), "--json", "--exploration"]
    assert CliRunner().invoke(app, [*command, "0"]).exit_code == 0
    assert CliRunner().invoke(app, [*command, "1.5"]).exit_code == 2
