"""A small language for what a video must be: `category == "music" and not author in ("x", "y") and 60 <= duration < 600`.

Flows in: text of a request. Flows out: an `Expression`, which is read by columns for all rows at once, and by the catalogue's
record for one. Always holds: it is parsed and never evaluated as code; its length and depth are bounded; what the record says
decides. Of what a video does not say, `==`, `<`, `in` and the like are false, and so `!=` and `not in` are true.

The words are Python's, and so is the parser; of its grammar comparisons, `in`, `and`, `or`, `not`, numbers and texts are taken.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from online_models.content import DAY_MS, LAST_DAY, code_of
from state.engine import Engine
from state.types import AnyArray, BoolArray, Int32Array
from topics.catalog import Video
from topics.evidence import SHOWN

MAX_LENGTH = 1_000
#: Comparisons in an expression, and texts in one list.
MAX_PARTS = 50
MAX_TEXTS = 200
#: Durations are kept as float32 logarithms: by columns they are compared with room for that.
ROOM = 1e-5

_OPERATORS: Mapping[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_COMPARE: Mapping[str, Callable[[AnyArray | float, float], AnyArray]] = {
    "==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_TURNED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


class BadExpression(ValueError):
    """The text is no expression, or asks for what is not there; the message says where."""


class _Record(NamedTuple):
    engine: Engine
    row: int
    video: Video


class _Test(Protocol):
    def sides(self, engine: Engine, rows: Int32Array | slice) -> tuple[BoolArray, BoolArray]: ...

    def admits(self, record: _Record) -> bool: ...


def _words_of(video: Video, field: str) -> tuple[str, ...]:
    if field == "category":
        return video.categories
    if field == "tag":
        return video.tags
    word = video.author if field == "author" else video.language
    return () if word is None else (word,)


@dataclass(frozen=True)
class _Word:
    """One of `words`, which are case folded, is among those of the field."""

    field: str
    words: frozenset[str]

    def sides(self, engine: Engine, rows: Int32Array | slice) -> tuple[BoolArray, BoolArray]:
        if self.field == "tag":
            unknown = np.zeros(len(engine.content.columns["author"][rows]), np.bool_)
            return unknown, ~unknown
        codes = np.array([code_of(word) for word in self.words], np.uint16)
        if self.field == "category":
            column = engine.content.columns["categories"][rows]
            # A full row may have left some out.
            named: BoolArray = np.isin(column, codes)
            may = np.any(named, axis=1) | np.all(column, axis=1)
        else:
            may = np.isin(engine.content.columns[self.field][rows], codes)
        # Names share codes.
        return np.zeros(len(may), np.bool_), may

    def admits(self, record: _Record) -> bool:
        return any(word.casefold() in self.words for word in _words_of(record.video, self.field))


@dataclass(frozen=True)
class _Id:
    """The video is one of these."""

    ids: frozenset[str]

    def sides(self, engine: Engine, rows: Int32Array | slice) -> tuple[BoolArray, BoolArray]:
        named = np.zeros(len(engine.replica), np.bool_)
        named[[row for row in map(engine.replica.find, self.ids) if row is not None]] = True
        return named[rows], named[rows]

    def admits(self, record: _Record) -> bool:
        return record.engine.replica.ids[record.row] in self.ids


@dataclass(frozen=True)
class _Number:
    """The field, if it is known, compares so with a number."""

    field: str
    comparison: str
    value: float

    def sides(self, engine: Engine, rows: Int32Array | slice) -> tuple[BoolArray, BoolArray]:
        low, high, known, value = self._range(engine, rows)
        compare = _COMPARE[self.comparison]
        if self.comparison == "==":
            may = known & (low <= value) & (value <= high)
            return may & (low == high), may
        ends = compare(low, value), compare(high, value)
        return known & ends[0] & ends[1], known & (ends[0] | ends[1])

    def _range(self, engine: Engine, rows: Int32Array | slice) -> tuple[AnyArray, AnyArray, AnyArray, float]:
        """Between what and what each row's number is, whether it has one, and what it is compared with, all in one unit."""
        if self.field == "duration":
            logs = engine.content.columns["duration"][rows].astype(np.float64)
            value = float(np.log1p(self.value)) if self.value > 0.0 else min(self.value, 0.0)
            return logs * (1.0 - ROOM), logs * (1.0 + ROOM), logs > 0.0, value
        if self.field == "age_days":
            begins, ends, known = self._published_days(engine, rows)
            today = engine.replica.stream_ms / DAY_MS
            return today - ends, today - begins, known, self.value
        if self.field == "published_ms":
            begins, ends, known = self._published_days(engine, rows)
            return begins * DAY_MS, ends * DAY_MS, known, self.value
        count = self._counts(engine, rows)
        return count, count, np.ones(len(count), np.bool_), self.value

    def _published_days(self, engine: Engine, rows: Int32Array | slice) -> tuple[AnyArray, AnyArray, AnyArray]:
        """Beginning and end of each row's day, counted from 1970, and whether it is known; the column has the day and one."""
        days = engine.content.columns["published"][rows].astype(np.float64)
        return days - 1.0, np.where(days >= LAST_DAY, np.inf, days), days > 0.0

    def _counts(self, engine: Engine, rows: Int32Array | slice) -> AnyArray:
        n = len(engine.replica)
        if self.field == "plays":
            return engine.popularity.columns["plays"][:n][rows]
        return engine.replica.counts[:n, SHOWN][rows].astype(np.float64)

    def admits(self, record: _Record) -> bool:
        published_ms = record.video.published_ms
        if self.field == "duration":
            # As the record is used elsewhere, 0 seconds are an unknown duration.
            number = record.video.duration_seconds or None
        elif self.field == "published_ms":
            number = published_ms
        elif self.field == "age_days":
            number = None if published_ms is None else (record.engine.replica.stream_ms - published_ms) / DAY_MS
        else:
            number = float(self._counts(record.engine, np.array([record.row], np.int32))[0])
        return number is not None and bool(_COMPARE[self.comparison](number, self.value))


@dataclass(frozen=True)
class _Not:
    part: _Test

    def sides(self, engine: Engine, rows: Int32Array | slice) -> tuple[BoolArray, BoolArray]:
        sure, may = self.part.sides(engine, rows)
        return ~may, ~sure

    def admits(self, record: _Record) -> bool:
        return not self.part.admits(record)


@dataclass(frozen=True)
class _Joined:
    """All parts fit, or any does."""

    all_of: bool
    parts: tuple[_Test, ...]

    def sides(self, engine: Engine, rows: Int32Array | slice) -> tuple[BoolArray, BoolArray]:
        join = np.logical_and if self.all_of else np.logical_or
        both = [part.sides(engine, rows) for part in self.parts]
        return join.reduce([sure for sure, _ in both]), join.reduce([may for _, may in both])

    def admits(self, record: _Record) -> bool:
        join = all if self.all_of else any
        return join(part.admits(record) for part in self.parts)


_WORDS = {
    "category": "category", "categories": "category", "tag": "tag", "tags": "tag", "author": "author", "language": "language",
}  # fmt: skip
_NUMBERS = {
    "duration": "duration", "duration_seconds": "duration", "age_days": "age_days", "published_ms": "published_ms",
    "plays": "plays", "shown": "shown",
}  # fmt: skip
_IDS = {"id", "video_id"}
FIELDS = (*_WORDS, *_NUMBERS, *sorted(_IDS))


@dataclass(frozen=True)
class Expression:
    """A parsed expression; equal where its text is."""

    text: str
    test: _Test

    def sides(self, engine: Engine, rows: Int32Array | slice) -> tuple[BoolArray, BoolArray]:
        """Which of the rows (int32, shape (m,), or a slice) surely fit and which may, by columns alone; bool, shape (m,)."""
        return self.test.sides(engine, rows)

    def admits(self, engine: Engine, row: int) -> bool:
        """Whether the row's record fits; nothing fits that is not described."""
        video = engine.replica.video(row)
        return video is not None and self.test.admits(_Record(engine, row, video))


def parse(text: str) -> Expression:
    """Read an expression. Raises BadExpression."""
    if len(text) > MAX_LENGTH:
        raise BadExpression(f"at most {MAX_LENGTH} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" at character {error.offset}" if isinstance(error, SyntaxError) and error.offset else ""
        raise BadExpression(f"no expression{where}: {_message(error)}") from error
    try:
        return Expression(text, _Reader().read(tree))
    except RecursionError as error:
        raise BadExpression("too deep") from error


def _message(error: BaseException) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__


class _Reader:
    """Turns a syntax tree into tests, and counts them."""

    def __init__(self) -> None:
        self._parts = 0

    def read(self, node: ast.expr) -> _Test:
        match node:
            case ast.BoolOp(op=op, values=values):
                return _Joined(isinstance(op, ast.And), tuple(self.read(value) for value in values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _Not(self.read(operand))
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [left, *others]
                tests = tuple(self._compare(sides[i], op, sides[i + 1]) for i, op in enumerate(ops))
                return tests[0] if len(tests) == 1 else _Joined(True, tests)
        raise BadExpression(f"{ast.unparse(node)[:60]!r} is no comparison; fields are {', '.join(FIELDS)}")

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Test:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadExpression(f"at most {MAX_PARTS} comparisons")
        if isinstance(op, ast.In | ast.NotIn):
            # Both ways: a field among texts, and a text among those of a field.
            if isinstance(left, ast.Name):
                test = self._among(left.id, _texts(right))
            elif isinstance(right, ast.Name):
                test = self._among(right.id, _texts(left))
            else:
                raise BadExpression("`in` needs a field on one side and texts on the other")
            return _Not(test) if isinstance(op, ast.NotIn) else test
        name = _OPERATORS.get(type(op))
        if name is None:
            raise BadExpression(
                f"{ast.unparse(ast.Compare(left, [op], [right]))[:60]!r}: only ==, !=, <, <=, >, >=, in, not in"
            )
        if not isinstance(left, ast.Name):
            left, right, name = right, left, _TURNED[name]
        if not isinstance(left, ast.Name):
            raise BadExpression("a comparison needs a field on one side")
        if left.id in _NUMBERS:
            number = _Number(_NUMBERS[left.id], "==" if name == "!=" else name, _number(left.id, right))
            return _Not(number) if name == "!=" else number
        if name not in ("==", "!="):
            _known(left.id)
            raise BadExpression(f"{left.id} is no number: {', '.join(_NUMBERS)} are")
        test = self._among(left.id, _texts(right))
        return _Not(test) if name == "!=" else test

    def _among(self, field: str, texts: frozenset[str]) -> _Test:
        _known(field)
        if field in _NUMBERS:
            raise BadExpression(f"{field} is a number: compare it with <, <=, ==, >= or >")
        if field in _IDS:
            return _Id(texts)
        return _Word(_WORDS[field], frozenset(text.casefold() for text in texts))


def _known(field: str) -> None:
    if field not in FIELDS:
        raise BadExpression(f"{field[:40]!r} is no field; there are {', '.join(FIELDS)}")


def _texts(node: ast.expr) -> frozenset[str]:
    """One text, or a list of them."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    if len(texts) != len(parts):
        raise BadExpression(f"{ast.unparse(node)[:60]!r} is no text and no list of texts")
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise BadExpression(f"1 to {MAX_TEXTS} texts in a list, got {len(texts)}")
    return frozenset(texts)


def _number(field: str, node: ast.expr) -> float:
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    if not isinstance(inner, ast.Constant) or type(inner.value) not in (int, float):
        raise BadExpression(f"{field} is compared with a number, got {ast.unparse(node)[:60]!r}")
    try:
        value = float(inner.value)  # type: ignore[arg-type] # the line above says so
    except OverflowError:
        value = np.inf
    if not np.isfinite(value):
        raise BadExpression(f"{field} is compared with a number that is too large")
    return -value if negative else value
