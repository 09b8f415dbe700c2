"""How the demo looks: a live panel on a terminal, a plain line every few seconds elsewhere, and the closing words."""

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.demo_replay import MAX_LAG
from cli.demo_status import LikeShown, Status

if TYPE_CHECKING:
    from api.schemas import Item
    from topics.catalog import Video


@dataclass(frozen=True)
class Labels:
    """Names for videos: the title, or where a log has none, what else is known."""

    videos: dict[str, "Video"]

    def of(self, item: "Item") -> str:
        """An item of an answer in a few words."""
        video = self.videos.get(item.video_id)
        known = item.title or (video and ", ".join((*video.categories[:2], video.author or "")).strip(", "))
        return f"{item.video_id} ({known})" if known else item.video_id


def line(status: Status, expected: int | None) -> str:
    """The state of the demo in one line."""
    of = f" of {expected:,}" if expected else ""
    parts = [
        f"{status.replayed:,}{of} events",
        f"{status.recent_rate():,.0f}/s",
        f"lag {status.lag()}",
        f"freshness {_ms(status.freshness(0.5))} p50, {_ms(status.freshness(0.99))} p99",
    ]
    n, served, trending = status.hit_rates()
    if n:
        parts.append(f"hit@10 served {served:.3f}, trending {trending:.3f} (n={n})")
    return ", ".join(parts) + ("" if status.answering else " (the worker does not answer)")


def panel(status: Status, title: str, url: str, expected: int | None) -> Group:
    """The live view."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    of = f" of {expected:,}" if expected else ""
    outcomes = ", ".join(f"{count:,} {name}" for name, count in status.outcomes().items())
    table.add_row("events", f"{status.replayed:,}{of}: {outcomes}")
    table.add_row("speed", f"{status.recent_rate():,.0f} events/s, paced so that no more than {MAX_LAG} wait")
    table.add_row("lag", f"{status.lag()} events" if status.answering else "the worker does not answer")
    table.add_row(
        "freshness",
        f"{_ms(status.freshness(0.5))} p50, {_ms(status.freshness(0.99))} p99 from send to answer "
        f"(n={len(status.freshness_ms)})",
    )
    n, served, trending = status.hit_rates()
    if n:
        table.add_row("hit rate @10", f"{served:.3f} served, {trending:.3f} trending (online, next positive, n={n})")
    parts: list[Any] = [Text(title, style="bold"), table]
    if status.like is not None:
        parts.append(like_table(status.like))
    parts.append(Text(f"Try it: curl {url}/v1/recommend/anybody   (Ctrl-C ends)", style="dim"))
    return Group(*parts)


def like_table(like: LikeShown) -> Table:
    """A list before and after a like."""
    table = Table(title=escape(f"{like.user_id} likes {like.liked}: {like.took_ms:.0f} ms later"), title_justify="left")
    table.add_column("before", overflow="fold")
    table.add_column("after", overflow="fold")
    for row in range(max(len(like.before), len(like.after))):
        before, after = ((column[row] if row < len(column) else "") for column in (like.before, like.after))
        new = after not in like.before
        table.add_row(escape(before), Text(after, style="green" if new else ""))
    return table


def say_like(console: Console, like: LikeShown) -> None:
    """The same, where there is no live view."""
    console.print(like_table(like))


def say_commands(console: Console, url: str, user_id: str, video_id: str) -> None:
    """What to try by hand."""
    like = f'{{"user_id": "me", "video_id": "{video_id}", "event": "like"}}'
    console.print("\nThe worker answers; try in another terminal:")
    for what, path in (
        ("a known user", f"/v1/recommend/{user_id}?n=5"),
        ("somebody new", "/v1/recommend/me?n=5"),
        ("similar to a video", f"/v1/similar/{video_id}?n=5"),
        ("what is watched now", "/v1/trending?n=5"),
    ):
        _say(console, f"  curl {shlex.quote(url + path)}   # {what}")
    _say(console, f"  curl -X POST {url}/v1/events -d {shlex.quote(like)}   # like it, then ask for me again")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
