"""Ratings become likes, views and dislikes; films keep title and genres."""

from collections import Counter
from pathlib import Path

import pytest

from ingestion import movielens
from ingestion.bad_file import BadRow

HEADER = "userId,movieId,rating,timestamp"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_ratings_become_events(tmp_path: Path) -> None:
    rows = ["1,10,4.0,50", "1,11,3.5,40", "1,12,2.0,30", "1,13,2.5,20", "1,14,0.5,10", "1,15,5,60"]
    table = movielens.read_table(write(tmp_path / "ratings.csv", *rows))
    events = list(table.interactions())
    assert [(event.video_id, event.event, event.at_ms) for event in events] == [
        ("14", "dislike", 10_000),
        ("13", "view", 20_000),
        ("12", "dislike", 30_000),
        ("11", "view", 40_000),
        ("10", "like", 50_000),
        ("15", "like", 60_000),
    ]
    assert len({event.event_id for event in events}) == 6
    expected = [False] * 4 + [True] * 2
    assert table.positive().tolist() == table.positive("rating>=4").tolist() == expected


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("1,10,six,50", "rating must be a number"),
        ("1,10,6,50", "rating must be from 0 to 5"),
        ("1,10,,50", "rating must be from 0 to 5"),
        ("1,10,4,", "timestamp is missing"),
        ("1,10,4,-3", "timestamp must be seconds"),
        ("x,10,4,3", "userId must be a whole number"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, bad: str, why: str) -> None:
    with pytest.raises(BadRow, match=f"line 3: {why}"):
        movielens.read_table(write(tmp_path / "ratings.csv", "1,10,4,50", bad))


def test_films(tmp_path: Path) -> None:
    rows = ['1,"American President, The (1995)",Comedy|Drama', "2,Untitled,(no genres listed)"]
    films = dict(movielens.read_videos(write(tmp_path / "movies.csv", *rows, header="movieId,title,genres")))
    assert films["1"].title == "American President, The (1995)"
    assert films["1"].categories == ("Comedy", "Drama")
    assert films["1"].tags == ("year-1995",)
    assert films["1"].published_ms is None
    assert (films["2"].categories, films["2"].tags) == ((), ())


def test_real_ratings(movielens_ratings: Path, movielens_movies: Path) -> None:
    table = movielens.read_table(movielens_ratings)
    counts = Counter(event.event for event in table.interactions())
    assert counts == {"like": 48_580, "view": 38_733, "dislike": 13_523}
    assert len(set(table.event_ids.to_pylist())) == table.rows == 100_836
    assert {event.video_id for event in table.interactions()} <= dict(movielens.read_videos(movielens_movies)).keys()
