"""Search finds what a plain reading of all titles finds, in that order, whatever has changed since."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from state.engine import Engine, EngineOptions
from state.search import MAX_WORDS, READ_AT_ONCE, ROW_BYTES, fold, words_of
from topics.catalog import Video


def engine_of(titles: dict[str, str] | None = None, capacity: int = 5_000) -> Engine:
    made = Engine(EngineOptions(partitions=2, max_videos=capacity), b"x")
    made.publish([(video_id, Video(title=title)) for video_id, title in (titles or {}).items()])
    return made


def found(engine: Engine, query: str, n: int = 100) -> list[str]:
    while not engine.search.refresh():
        pass
    return engine.replica.ids_of(engine.search.find(query, n).tolist())


TITLES = {
    "t1": "Toy Story (1995)",
    "t2": "Toy Story 2 (1999)",
    "t3": "The Story of Toys",
    "a1": "Amélie (Le fabuleux destin d'Amélie Poulain)",
    "n1": "Dødsønsker i Tromsø",
    "j1": "千と千尋の神隠し",
    "g1": "STRAẞE der Träume",
    "clip-77": "",
}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("toy story", ["t1", "t2", "t3"]),
        ("TOY STO", ["t1", "t2", "t3"]),
        ("story toy", ["t1", "t2", "t3"]),
        ("toys", ["t3"]),
        ("toy story 2 1999", ["t2"]),
        ("oy", []),
        ("amelie", ["a1"]),
        ("AMÉLIE POUL", ["a1"]),
        ("ame\u0301lie", ["a1"]),
        ("dodsonsker TROMSØ", ["n1"]),
        ("神隠し", ["j1"]),
        ("strasse traume", ["g1"]),
        ("t2", ["t2"]),
        ("t", ["t1", "t2", "t3", "n1", "g1"]),
        ("clip", ["clip-77"]),
        ("clip-77", ["clip-77"]),
        ("  clip-77 ", ["clip-77"]),
        ("77", ["clip-77"]),
        ("!?", []),
        ("toy zebra", []),
    ],
)
def test_words_are_found_by_how_they_begin(query: str, expected: list[str]) -> None:
    assert sorted(found(engine_of(TITLES), query)) == sorted(expected)


def test_what_fits_best_comes_first_and_of_equals_the_most_played() -> None:
    engine = engine_of(
        {
            "beginnings": "a starry night of warships",
            "words": "the wars of a star",
            "begins": "star wars again",
            "begins-too": "Star Warships",
            "title": "Star Wars",
            "star wars": "something else",
            "words-played": "wars, and a star",
        }
    )
    for video_id in ("words-played", "begins-too", "begins-too", "beginnings", "beginnings", "beginnings"):
        row = engine.replica.row_of(video_id)
        engine.count_positives(np.array([row], np.int32), np.array([1_700_000_000_000], np.int64))
    expected = ["star wars", "title", "begins-too", "begins", "words-played", "words", "beginnings"]
    assert found(engine, "star wars") == expected
    assert found(engine, "star wars", 3) == expected[:3]
    # One word alone: the id's words count as well, after those of titles.
    assert found(engine, "played") == ["words-played"]


def test_only_what_may_be_listed_is_found_as_it_is_now() -> None:
    engine = engine_of({"a": "one film", "b": "two film", "c": "three film"})
    assert found(engine, "film") == ["a", "b", "c"]
    engine.publish(
        [("a", Video(title="now a play")), ("b", Video(title="two film", hidden=True)), ("d", Video(title="film"))]
    )
    engine.unpublish("c")
    assert found(engine, "film") == ["d"]
    assert found(engine, "play") == ["a"]
    assert found(engine, "c") == []
    engine.publish([("b", Video(title="two film")), ("c", Video(title="a fourth film"))])
    assert found(engine, "film") == ["d", "b", "c"]
    assert found(engine, "three") == []
    # A row that is used again is another video's.
    row = engine.replica.row_of("a")
    engine.replica.drop(row)
    engine.replica.recycle()
    assert found(engine, "play") == []
    engine.publish([("e", Video(title="a play of its own"))])
    assert engine.replica.row_of("e") == row
    assert found(engine, "play") == ["e"]
    assert found(engine, "now") == []


def test_a_video_of_events_alone_is_found_by_its_id_and_a_placeholder_not_at_all() -> None:
    engine = engine_of()
    engine.replica.row_of("known-by-events")
    engine.replica.rows_of_hashes(np.array([12], np.uint64))
    assert found(engine, "events") == ["known-by-events"]


def test_nothing_is_read_before_the_first_search_and_then_in_parts() -> None:
    engine = engine_of({f"v{n}": f"film number {n}" for n in range(3 * READ_AT_ONCE)})
    assert engine.search.size_bytes == 0
    assert engine.search.find("film", 10).tolist() == []
    assert not engine.search.refresh()
    assert len(engine.search.find("film", 10_000)) == READ_AT_ONCE
    assert not engine.search.refresh()
    assert engine.search.refresh()
    assert len(engine.search.find("film", 10_000)) == 3 * READ_AT_ONCE


def test_memory_is_bounded_however_often_titles_change_and_however_long_they_are() -> None:
    engine = engine_of({f"v{n}": "x" * 40 for n in range(500)})
    found(engine, "x")
    before = engine.search.size_bytes
    for change in range(40):
        engine.publish([(f"v{n}", Video(title=f"{change} " + "y" * 40)) for n in range(500)])
        assert len(found(engine, "y", 1_000)) == 500
    assert engine.search.size_bytes < 2 * before
    # U+FDFA unfolds to eighteen letters.
    engine.publish([(f"v{n}", Video(title="\ufdfa" * 500)) for n in range(500)])
    assert len(found(engine, fold("\ufdfa")[:3], 1_000)) == 500
    assert engine.search.size_bytes < 3 * (ROW_BYTES + 20) * 500


def test_a_query_of_any_length_is_bounded() -> None:
    engine = engine_of({"a": " ".join(f"w{n}" for n in range(30)), "b": "w0 w1"})
    many = " ".join(f"w{n}" for n in range(30))
    assert found(engine, many) == ["a"]
    # What is beyond the bound does not count.
    assert found(engine, " ".join([*(f"w{n}" for n in range(MAX_WORDS)), "zebra"])) == ["a"]
    assert found(engine, "w0 " * 500) == ["a", "b"]
    assert found(engine, "x" * 10_000) == []


def test_a_word_ends_where_it_ends() -> None:
    # Words lie one behind the other with their lengths between: 97 is the letter a.
    engine = engine_of({"1": "aab " + "b" * 97, "2": "b"})
    assert found(engine, "aaba") == []
    assert found(engine, "aab bbb") == ["1"]


def plainly(titles: dict[str, str], query: str) -> list[tuple[int, str]]:
    """The same in other words: level and id of what fits."""

    def words(text: str) -> list[str]:
        apart = unicodedata.normalize("NFKD", text.casefold())
        return re.findall("[^\\W_]+", "".join(c for c in apart if not unicodedata.combining(c)).casefold())

    wanted = list(dict.fromkeys(words(query)))
    out = []
    for video_id, title in titles.items():
        own, every = words(title), words(title) + words(video_id)
        if video_id == query.strip():
            level = 5
        elif not wanted or not all(any(word.startswith(w) for word in every) for w in wanted):
            continue
        elif len(own) >= len(wanted) and all(word.startswith(w) for word, w in zip(own, wanted, strict=False)):
            level = 4 if own == wanted else 3
        else:
            level = 2 if all(w in every for w in wanted) else 1
        out.append((level, video_id))
    return out


LETTERS = "abcÉ é12-_ß"


@example({"11": "11", "1-": "11"}, ["1"])
@given(
    st.dictionaries(st.text("abc1-", min_size=1, max_size=5), st.text(LETTERS, max_size=14), min_size=1, max_size=25),
    st.lists(st.text(LETTERS, min_size=1, max_size=9), min_size=1, max_size=6),
)
def test_it_finds_what_a_plain_reading_finds(titles: dict[str, str], queries: list[str]) -> None:
    engine = engine_of(titles)
    for query in queries:
        expected = [video_id for _, video_id in sorted(plainly(titles, query), key=lambda entry: -entry[0])]
        assert found(engine, query) == expected, query


def test_words() -> None:
    assert words_of("The_Matrix: Re-loaded") == [b"the", b"matrix", b"re", b"loaded"]
    assert words_of("") == []
    assert words_of("ﬁlm É ½") == [b"film", b"e", b"1", b"2"]
