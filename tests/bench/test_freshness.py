import asyncio
import time
from itertools import islice
from pathlib import Path

import pytest

from bench import probing
from bench.pacing import read_lines, write_lines
from bench.probing import ProbeLost, Prober, hop_pairs, quantiles
from ingestion.simulate import Audience
from topics.interactions import decode_value
from topics.partitions import partition_of


def test_a_pair_crosses_shards_and_is_nobody_elses() -> None:
    pairs = list(islice(hop_pairs(4), 200))
    assert all(partition_of(p.user.encode(), 4) != partition_of(p.a.encode(), 4) for p in pairs)
    assert len({name for pair in pairs for name in pair}) == 600


def test_quantiles_are_in_ms() -> None:
    assert quantiles([n / 1000 for n in range(1, 102)]) == {"p50_ms": 51.0, "p99_ms": 100.0, "n": 101}


def test_a_load_reaches_its_producer_as_it_was(tmp_path: Path) -> None:
    events = list(Audience(seed=3, users=20, videos=50).events(500))
    assert write_lines(events, tmp_path / "load") == 500
    found = read_lines(tmp_path / "load")
    assert [decode_value(value) for _, value in found] == events
    assert [key.decode() for key, _ in found] == [event.user_id for event in events]


class Pretended(Prober):
    """A prober whose events take effect after a while."""

    after_s = 0.03

    def _send(self, user: str, video: str) -> float:
        self.sent = (video, time.monotonic(), user)
        return self.sent[1]

    async def _listed(self, path: str) -> list[str]:
        await asyncio.sleep(0)
        self.requests += 1
        video, at, _ = getattr(self, "sent", ("", 0.0, ""))
        seen = bool(video) and time.monotonic() - at >= self.after_s
        if path.startswith("/v1/similar"):
            return [video] if seen else []
        return ["next"] if seen else ["first", "next"]


def prober() -> Pretended:
    return Pretended("", "", 0, iter(()))


async def test_a_probe_lasts_until_its_effect_is_seen() -> None:
    own = prober()
    await own._own("own-1")()
    assert own.own_s[0] >= 0.03
    assert own.requests < 15, "a list to choose from, then a look every 4 ms"
    hop = prober()
    await hop._hop(next(hop_pairs(4)))()
    assert (len(hop.hop_s), hop.own_s) == (1, [])
    assert hop.hop_s[0] >= 0.03


async def test_a_late_effect_is_looked_for_less_often_and_a_lost_one_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probing, "LOST_S", 0.4)
    lost = prober()
    lost.after_s = 60.0
    with pytest.raises(ProbeLost, match="recommend"):
        await lost._own("own-1")()
    assert lost.requests < 45, "100 at a steady 4 ms"
    assert lost.own_s == []
