"""The simulated audience is the same for a seed, valid, and has tastes that can be learned and that drift."""

from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from ingestion.simulate import START_MS, Audience
from topics import catalog, interactions
from topics.signals import is_positive


def test_same_seed_same_stream() -> None:
    one, same, other = (Audience(seed, users=20, videos=50) for seed in (1, 1, 2))
    assert one.videos() == same.videos()
    events = list(one.events(500))
    assert events == list(same.events(500)) == list(one.events(500))
    assert events[:100] == list(one.events(100))
    assert events != list(other.events(500))
    assert one.videos() != other.videos()


def test_events_are_valid_unique_and_ordered() -> None:
    audience = Audience(3, users=100, videos=300)
    videos = dict(audience.videos())
    events = list(audience.events(20_000))
    assert len(events) == 20_000
    assert len({event.event_id for event in events}) == 20_000
    assert all(before.at_ms <= after.at_ms for before, after in pairwise(events))
    for event in events:
        assert interactions.encode(event)
        assert event.at_ms >= (videos[event.video_id].published_ms or 0)
        assert (event.event == "watch") == (event.watch_seconds is not None)
    assert {event.event for event in events} == {*interactions.EVENTS} - {"view", "unlike"}


def test_videos_have_titles_and_can_be_sent() -> None:
    videos = Audience(1, users=1, videos=500).videos()
    assert len(videos) == len(dict(videos)) == 500
    assert all(video.title and video.categories and video.author and catalog.encode(video) for _, video in videos)
    late = sum((video.published_ms or 0) > START_MS for _, video in videos)
    assert 0.1 < late / 500 < 0.3


def test_tastes_concentrate_and_drift() -> None:
    audience = Audience(1, users=200, videos=3_000)
    category = {video_id: video.categories[0] for video_id, video in audience.videos()}
    liked: dict[str, list[str]] = defaultdict(list)
    for event in audience.events(150_000):
        if is_positive(event.event, event.watch_seconds, event.duration_seconds):
            liked[event.user_id].append(category[event.video_id])
    active = [categories for categories in liked.values() if len(categories) >= 200]
    assert len(active) > 20

    def top_two(categories: list[str]) -> set[str]:
        return {name for name, _ in Counter(categories).most_common(2)}

    own = [sum(name in top_two(early[:100]) for name in early[:100]) / 100 for early in active]
    assert sum(own) / len(own) > 0.4  # a sixth, were there no tastes
    changed = sum(top_two(categories[:100]) != top_two(categories[-100:]) for categories in active)
    assert changed / len(active) > 0.2


def test_popularity_is_uneven() -> None:
    counts = Counter(event.video_id for event in Audience(1, users=300, videos=1_000).events(30_000))
    ranked = [n for _, n in counts.most_common()]
    assert sum(ranked[:100]) > 0.25 * sum(ranked)


def test_a_small_catalogue_does_not_end_the_stream() -> None:
    assert len(list(Audience(1, users=1, videos=1).events(50))) == 50


@pytest.mark.parametrize(("users", "videos"), [(0, 1), (1, 0)])
def test_nobody_or_nothing_is_no_audience(users: int, videos: int) -> None:
    with pytest.raises(ValueError, match="an audience needs"):
        Audience(1, users=users, videos=videos)
