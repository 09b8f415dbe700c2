"""Owners, as the assignor tells of them."""

from pathlib import Path
from typing import Any, cast

import msgspec

from agents.owners import Distribution, Owners
from agents.worker import create_app
from infra.settings import Settings
from topics.specs import INTERACTIONS, VIDEOS

MINE, THEIRS = "http://10.0.0.1:6066", "http://10.0.0.2:6066"


class Assignor:
    """Says what a test has it say."""

    def __init__(self) -> None:
        self.latest: Distribution = {}

    def __call__(self) -> Distribution:
        return self.latest


def test_others_are_found_by_their_partitions_of_the_one_topic_and_we_are_none() -> None:
    assignor = Assignor()
    owners = Owners(assignor, INTERACTIONS, MINE)
    assert owners.url_of(0) is None
    assignor.latest = {MINE: {INTERACTIONS: [0, 2], VIDEOS: [0]}, THEIRS: {INTERACTIONS: [1], VIDEOS: [1, 3]}}
    assert [owners.url_of(partition) for partition in range(4)] == [None, THEIRS, None, None]


def test_a_new_distribution_takes_the_place_of_the_old_one() -> None:
    assignor = Assignor()
    owners = Owners(assignor, INTERACTIONS, MINE)
    assignor.latest = {MINE: {INTERACTIONS: [0]}, THEIRS: {INTERACTIONS: [1]}}
    assert (owners.url_of(0), owners.url_of(1)) == (None, THEIRS)
    assignor.latest = {MINE: {INTERACTIONS: [1]}, THEIRS: {INTERACTIONS: [0]}}
    assert (owners.url_of(0), owners.url_of(1)) == (THEIRS, None)
    assignor.latest = {MINE: {INTERACTIONS: [0, 1]}}
    assert (owners.url_of(0), owners.url_of(1)) == (None, None)


def test_the_group_is_told_the_url_that_is_advertised(tmp_path: Path) -> None:
    app = create_app(Settings(home=tmp_path, advertised_url="http://10.0.0.3:7000/"), "127.0.0.1:1")
    assert msgspec.json.decode(cast("Any", app.assignor).metadata(set()).user_data)["url"] == "http://10.0.0.3:7000"
