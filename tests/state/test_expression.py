"""Filter expressions: what they say is what the record says, by columns and one by one; nothing is ever run."""

import ast
import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.expression import FIELDS, MAX_LENGTH, MAX_PARTS, BadExpression, parse
from state.filters import Filter
from state.lists import Wish, personal_list
from tests.agents.world import NOW_MS, World, liked, world
from topics.catalog import Video

DAY_MS = 86_400_000


def catalogue(n: int = 200) -> dict[str, Video]:
    """Videos of which some say nothing of some things."""
    rng = np.random.default_rng(8)
    made = {}
    for number in range(n):
        says = rng.random(5) < 0.8
        made[f"v{number}"] = Video(
            title=f"film {number}",
            categories=tuple(f"Kind{k}" for k in rng.permutation(8)[: rng.integers(0, 7)].tolist()),
            tags=tuple(f"tag{k}" for k in rng.permutation(5)[: rng.integers(0, 3)].tolist()),
            author=f"Author{number % 7}" if says[4] else None,
            language=("en", "no", "Pt")[number % 3] if says[0] else None,
            duration_seconds=float(rng.integers(0, 600)) if says[1] else None,
            published_ms=NOW_MS - int(rng.integers(0, 90 * DAY_MS)) if says[2] else None,
        )
    return made


VIDEOS = catalogue()


@pytest.fixture(scope="module")
def audience() -> World:
    made = world(partitions=2)
    for video_id, video in VIDEOS.items():
        made.put(video_id, video)
    rng = np.random.default_rng(9)
    for number in range(600):
        made.send(
            liked(f"u{number % 30}", f"v{int(rng.random() ** 2 * 150)}", number, at_ms=NOW_MS - 1_000 * (600 - number))
        )
    made.settle()
    return made


def holds(audience: World, text: str, video_id: str) -> bool:
    """What the expression says by plain Python, over values made from the record: the judge that shares no code with ours."""
    engine = audience.engine
    row = engine.replica.find(video_id)
    assert row is not None
    video = VIDEOS[video_id]

    class Number:
        def __init__(self, value: float | None) -> None:
            self.value = value

        def _is(self, known: bool) -> bool:
            return self.value is not None and known

        def __lt__(self, other: float) -> bool:
            return self._is(self.value is not None and self.value < other)

        def __le__(self, other: float) -> bool:
            return self._is(self.value is not None and self.value <= other)

        def __gt__(self, other: float) -> bool:
            return self._is(self.value is not None and self.value > other)

        def __ge__(self, other: float) -> bool:
            return self._is(self.value is not None and self.value >= other)

        def __eq__(self, other: object) -> bool:
            return self._is(self.value == other)

        __hash__ = None  # type: ignore[assignment]

    class Words:
        def __init__(self, *words: str | None) -> None:
            self.words = {word.casefold() for word in words if word is not None}

        def __eq__(self, other: object) -> bool:
            return isinstance(other, str) and other.casefold() in self.words

        def __contains__(self, word: str) -> bool:
            return word.casefold() in self.words

        __hash__ = None  # type: ignore[assignment]

    age = None if video.published_ms is None else (engine.replica.stream_ms - video.published_ms) / DAY_MS
    names = {
        "category": Words(*video.categories), "tag": Words(*video.tags), "author": Words(video.author),
        "language": Words(video.language), "duration": Number(video.duration_seconds or None), "age_days": Number(age),
        "published_ms": Number(video.published_ms), "plays": Number(float(engine.popularity.columns["plays"][row])), "id": video_id,
    }  # fmt: skip
    return bool(eval(compile(ast.parse(text, mode="eval"), "test", "eval"), {"__builtins__": {}}, names))  # noqa: S307 - the test's own text


WORDS = st.sampled_from(["category", "tag", "author", "language"])
NAMES = st.sampled_from(["kind1", "KIND2", "Kind7", "tag0", "TAG4", "author3", "Author5", "en", "pt", "nobody"])
NUMBERS = st.one_of(
    st.tuples(st.just("duration"), st.sampled_from(["<", "<=", "==", ">=", ">", "!="]), st.integers(-1, 601)),
    st.tuples(st.just("age_days"), st.sampled_from(["<", "<=", ">=", ">"]), st.integers(-1, 91)),
    st.tuples(st.just("published_ms"), st.sampled_from(["<", ">="]), st.integers(NOW_MS - 90 * DAY_MS, NOW_MS)),
    st.tuples(st.just("plays"), st.sampled_from(["<", "==", ">", "!="]), st.integers(0, 12)),
).map(lambda parts: f"{parts[0]} {parts[1]} {parts[2]}")
TESTS = st.one_of(
    st.tuples(WORDS, st.sampled_from(["==", "!="]), NAMES).map(lambda parts: f"{parts[0]} {parts[1]} {parts[2]!r}"),
    st.tuples(NAMES, st.sampled_from(["in", "not in"]), WORDS).map(lambda parts: f"{parts[0]!r} {parts[1]} {parts[2]}"),
    NUMBERS,
    st.integers(0, 200).map(lambda number: f"id == 'v{number}'"),
)
EXPRESSIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(text=EXPRESSIONS)
def test_it_means_what_python_would_mean(audience: World, text: str) -> None:
    expression, engine = parse(text), audience.engine
    sure, may = expression.sides(engine, slice(0, len(engine.replica)))
    for video_id in VIDEOS:
        row = engine.replica.find(video_id)
        assert row is not None
        fits = holds(audience, text, video_id)
        assert expression.admits(engine, row) == fits, video_id
        assert may[row] if fits else not sure[row], video_id


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("60 <= duration < 300", "duration >= 60 and duration < 300"),
        ("category in ('kind1', \"KIND2\")", "category == 'kind1' or category == 'kind2'"),
        ("author not in ['Author1']", "author != 'author1'"),
        ("'kind1' in categories", "category == 'kind1'"),
        ("duration_seconds < 60", "60 > duration"),
        ("id in {'v1', 'v2'}", "video_id == 'v1' or id == 'v2'"),
    ],
)
def test_two_ways_to_say_the_same(audience: World, text: str, same: str) -> None:
    rows = range(len(audience.engine.replica))
    first, second = ([parse(each).admits(audience.engine, row) for row in rows] for each in (text, same))
    assert first == second
    assert 0 < sum(first) < len(first)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "category", "category ==", "1 < 2", "nothing == 'a'", "duration == 'a'", "category < 'a'", "category == 1",
        "duration < 1e999", "duration < 1j", "duration < True", "duration is 1", "category == 'a' if 1 else 2", "f(category)",
        "category.x == 'a'", "category[0] == 'a'", "lambda: 1", "(x := 1) == 1", "[c for c in category]", "category == f'{1}'",
        "category == b'a'", "category in ()", "category in ('a', 1)", "duration in (1, 2)", "__import__('os').system('true')",
        "category == 'a' and", "(" * 300 + "duration < 1" + ")" * 300, "not " * 240 + "duration < 1 or x",
        " or ".join(["plays < 1"] * (MAX_PARTS + 1)), "a" * (MAX_LENGTH + 1), "category == 'a'; x", "duration < 10 ** 9",
        "duration < 1_0_",
        "category == 'a'\x00", "\ud800", "-duration < 1", "duration < --1", "'a' in 'b'", "plays < " + "9" * 900,
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadExpression, match=r".{5,}"):
        parse(text)


@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=80),
        st.lists(st.sampled_from([*FIELDS, "(", ")", "<", "==", "in", "not", "and", "'a'", "1", ","])).map(" ".join),
    )
)
def test_whatever_comes_is_an_expression_or_refused(text: str) -> None:
    with contextlib.suppress(BadExpression):
        parse(text)


def test_a_list_has_only_what_fits_and_all_of_it(audience: World) -> None:
    """Also what columns cannot tell, and what no source proposes."""
    text = "tag == 'tag3' and not author in ('author1', 'author2') and duration < 300"
    fit = {video_id for video_id in VIDEOS if holds(audience, text, video_id)}
    found = personal_list(audience.engine, None, -1, Wish(200, wanted=Filter(expression=parse(text))))
    assert {audience.engine.replica.ids[place.row] for place in found.served} == fit
    assert 5 < len(fit) < 50


def test_what_no_candidate_is_is_looked_for_in_the_catalogue() -> None:
    """One of many, which nobody has played, is not among those that sources propose."""
    state = world(partitions=1)
    for number in range(900):
        state.put(f"v{number}", Video(title=f"film {number}", tags=("rare",) if number == 3 else ()))
    for number in range(400):
        state.send(liked(f"u{number % 20}", f"v{100 + number}", number))
    state.settle()
    found = personal_list(state.engine, "u1", 0, Wish(5, wanted=Filter(expression=parse("tag == 'rare'"))))
    assert [state.engine.replica.ids[place.row] for place in found.served] == ["v3"]
