"""A KuaiRand row becomes the events that it stands for, in order, and twice the same row the same events."""

from collections import Counter, deque
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from ingestion import kuairand
from ingestion.bad_file import BadFile, BadRow
from ingestion.event_table import EventTable
from topics.interactions import encode, event_code
from topics.partitions import partition_of

HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)


def row(
    user: int = 1, video: int = 2, time_ms: int = 1000, flags: str = "0,0,0,0,0", play: object = 0, long_view: int = 0,
    duration: object = 20_000,
) -> str:  # fmt: skip
    return f"{user},{video},20220425,0,{time_ms},1,{flags},{long_view},{play},{duration},0,0,0,0,1"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_rows_events_come_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", row(flags="1,1,1,1,1", play=18_500, long_view=1))
    events = list(kuairand.read_events(path))
    assert [event.event for event in events] == [
        *("impression", "watch", "like", "follow", "comment", "share", "dislike")
    ]
    assert {(event.user_id, event.video_id, event.at_ms) for event in events} == {("1", "2", 1000)}
    assert len({event.event_id for event in events}) == 7
    assert (events[1].watch_seconds, events[1].duration_seconds) == (18.5, 20.0)
    assert {(event.watch_seconds, event.duration_seconds) for event in events if event.event != "watch"} == {
        (None, None)
    }


def test_time_orders_rows_and_ties_stay_as_they_are(tmp_path: Path) -> None:
    rows = [row(video=1, time_ms=9, play=1), row(video=2, time_ms=5, play=1), row(video=3, time_ms=9, play=1)]
    events = list(kuairand.read_events(write(tmp_path / "log.csv", *rows)))
    assert [(event.video_id, event.event) for event in events] == [
        *(("2", "impression"), ("2", "watch")),
        *(("1", "impression"), ("1", "watch")),
        *(("3", "impression"), ("3", "watch")),
    ]


def test_equal_rows_have_equal_ids_and_others_do_not(tmp_path: Path) -> None:
    rows = [row(play=5), row(play=5), row(play=6), row(play=5).removesuffix("1") + "2"]
    events = list(kuairand.read_events(write(tmp_path / "log.csv", *rows)))
    ids = [event.event_id for event in events if event.event == "watch"]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("duration", ["0", "", "-1"])
def test_an_unknown_duration(tmp_path: Path, duration: str) -> None:
    rows = [row(play=18_000, duration=duration), row(play=17_999, duration=duration)]
    table = kuairand.read_table(write(tmp_path / "log.csv", *rows))
    assert np.isnan(table.duration_seconds).all()
    assert table.positive().tolist() == [False, True, False, False]


def test_long_view_overrides_what_is_positive(tmp_path: Path) -> None:
    rows = [row(play=19_000), row(play=1_000, long_view=1), row(flags="1,0,0,0,0", long_view=0)]
    table = kuairand.read_table(write(tmp_path / "log.csv", *rows))
    watch, like = event_code("watch"), event_code("like")
    assert table.codes.tolist() == [0, watch, 0, watch, 0, like]
    assert table.positive().tolist() == [False, True, False, False, False, True]
    assert table.positive("long_view").tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (row().replace("1000", "soon"), "time_ms must be a number, got 'soon'"),
        (row().replace("1000", ""), "time_ms is missing"),
        (row(time_ms=-5), "time_ms must not be negative, got -5"),
        (row(play="1.5"), "play_time_ms must be a whole number, got 1.5"),
        (row(play=-1), "play_time_ms must not be negative"),
        (row() + ",7", "Expected 19 columns, got 20"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, bad: str, why: str) -> None:
    path = write(tmp_path / "log.csv", row(), row(), "", bad, row())  # a blank line is a line
    with pytest.raises(BadRow) as caught:
        kuairand.read_table(path)
    assert caught.value.line == 5
    assert why in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "1,2", header="user_id,video_id")
    with pytest.raises(BadFile, match="time_ms, play_time_ms, duration_ms, long_view"):
        kuairand.read_table(path)


def test_a_video_has_category_channel_and_time(tmp_path: Path) -> None:
    header = "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,music_id,tag"
    rows = ['7,5,NORMAL,2022-04-10,Kmovie,0.0,1500.0,99,"20,43"', "8,5,NORMAL,2022-04-10,Kmovie,0.0,,99,"]
    videos = dict(kuairand.read_videos(write(tmp_path / "videos.csv", *rows, header=header)))
    assert videos["7"].categories == ("category-20", "category-43")
    assert videos["7"].author == "author-5"
    assert videos["7"].duration_seconds == 1.5
    assert videos["7"].published_ms == 1_649_520_000_000  # midnight in China
    assert (videos["8"].categories, videos["8"].duration_seconds) == ((), None)
    bad = write(tmp_path / "bad.csv", rows[0], rows[1].replace("2022-04-10", "soon"), header=header)
    with pytest.raises(BadRow, match="line 3: upload_dt must be a date, got 'soon'"):
        list(kuairand.read_videos(bad))


def test_a_user_has_ranges_and_encoded_features_of_few_values(tmp_path: Path) -> None:
    header = "user_id,user_active_degree,is_live_streamer,is_video_author,follow_user_num_range,fans_user_num_range"
    header += ",register_days_range,register_days,onehot_feat0,onehot_feat3"
    rows = [f'{n},{"full_active" if n else ""},0,1,"(10,50]",0,730+,{800 + n},{n % 64},{n}' for n in range(65)]
    users = dict(kuairand.read_users(write(tmp_path / "users.csv", *rows, header=header)))
    assert users["1"].segments == ("full_active",)
    assert users["1"].attributes == {
        "is_live_streamer": "0", "is_video_author": "1", "follow_user_num_range": "(10,50]",
        "fans_user_num_range": "0", "register_days_range": "730+", "onehot_feat0": "1",
    }  # fmt: skip
    assert users["0"].segments == ()
    without = write(tmp_path / "bad.csv", "1", header="user_id")
    with pytest.raises(BadFile, match="user_active_degree"):
        list(kuairand.read_users(without))


@pytest.fixture(scope="module")
def real(kuairand_log: Path) -> EventTable:
    return kuairand.read_table(kuairand_log)


def test_real_log_counts(real: EventTable) -> None:
    assert real.rows == 228_329
    assert Counter(event.event for event in real.interactions()) == {
        "impression": 228_329,
        "watch": 206_066,
        "like": 3_915,
        "comment": 579,
        "follow": 304,
        "share": 195,
        "dislike": 190,
    }
    assert all(before <= after for before, after in pairwise(real.at_ms.tolist()))


def test_real_duplicates_are_caught_by_a_users_last_32_events(real: EventTable) -> None:
    """5,460 duplicate rows are 10,966 duplicate events; the users' rows remember 32 event ids."""
    assert len(real) - len(set(real.event_ids.to_pylist())) == 10_966
    last: dict[str, deque[str]] = {}
    caught = 0
    for user_id, event_id in zip(real.user_ids.to_pylist(), real.event_ids.to_pylist(), strict=True):
        ids = last.setdefault(user_id, deque(maxlen=32))
        if event_id in ids:
            caught += 1
        else:
            ids.append(event_id)
    assert caught == 10_966


def test_real_long_views_agree_with_the_default_rule(real: EventTable) -> None:
    watch = real.codes == event_code("watch")
    label, rule = real.positive("long_view"), real.positive("long_watch")
    assert label.sum() == 70_963
    assert (label == rule)[watch].mean() > 0.997
    unknown = watch & np.isnan(real.duration_seconds)
    assert unknown.sum() > 1000
    assert (label == rule)[unknown].all()


def test_real_events_can_all_be_sent(real: EventTable) -> None:
    for event in real.interactions(stop=20_000):
        assert encode(event)
    shares = Counter(partition_of(user_id.encode(), 4) for user_id in real.user_ids.to_pylist())
    assert set(shares) == {0, 1, 2, 3}


def test_csv_and_parquet_give_the_same_events(tmp_path: Path, kuairand_log: Path) -> None:
    rows = pa.parquet.read_table(kuairand_log).slice(0, 3000)
    pa.csv.write_csv(rows, tmp_path / "log.csv")
    pa.parquet.write_table(rows, tmp_path / "log.parquet")
    assert list(kuairand.read_events(tmp_path / "log.csv")) == list(kuairand.read_events(tmp_path / "log.parquet"))
