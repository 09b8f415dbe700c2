"""What the demo replays: cut after whole rows, moved to end now, and otherwise as it is."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from cli.demo_source import FIRST_OF_ROW, SIMULATED_ROWS, first_rows, open_source
from ingestion import kuairand
from ingestion.simulate import Audience

NOW_MS = 1_900_000_000_000
HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)


def test_an_audience_is_cut_after_whole_rows(tmp_path: Path) -> None:
    source = open_source(tmp_path, seed=3, limit=50, now_ms=NOW_MS)
    events = list(source.events)
    assert source.name == "simulated"
    assert str(tmp_path) in source.about
    assert len(events) == source.events_expected > source.rows == 50
    assert sum(event.event == FIRST_OF_ROW for event in events) == 50


def test_times_move_together_and_end_now(tmp_path: Path) -> None:
    source = open_source(tmp_path, seed=3, limit=50, now_ms=NOW_MS)
    moved, plain = list(source.events), list(Audience(3, 2_000, 2_000).events(source.events_expected))
    assert moved[-1].at_ms == NOW_MS
    by_ms = NOW_MS - plain[-1].at_ms
    assert moved == [replace(event, at_ms=event.at_ms + by_ms) for event in plain]
    published = [video.published_ms for _, video in Audience(3, 2_000, 2_000).videos()]
    assert [video.published_ms for _, video in source.videos] == [at + by_ms for at in published if at is not None]


def test_a_log_is_cut_after_whole_rows(tmp_path: Path) -> None:
    # The second row becomes three events: an impression, a watch and a like.
    rows = [
        f"{user},7,20220424,1000,{1_650_000_000_000 + user},1,{int(user == 2)},0,0,0,0,0,{5_000 * (user == 2)},9000,0,0,0,0,1"
        for user in (1, 2, 3)
    ]
    path = tmp_path / "interactions.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    table = kuairand.read_table(path)
    assert [first_rows(table, limit) for limit in (1, 2, 3, 4, None)] == [(1, 1), (2, 4), (3, 5), (3, 5), (3, 5)]


@pytest.mark.parametrize("data", [None, Path("nowhere")])
def test_without_a_limit_the_audience_still_ends(data: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.demo_source.BESIDE", Path("nowhere either"))
    monkeypatch.setattr("cli.demo_source.SIMULATED_ROWS", 20)
    source = open_source(data, seed=1, limit=None, now_ms=NOW_MS)
    assert source.rows == 20 < SIMULATED_ROWS
    assert ("HEADRACE_DATA" in source.about) == (data is None)
