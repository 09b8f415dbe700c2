"""The simulation of cold starts: a tiny run for real, and what its figures count."""

import json
import subprocess
import sys

from bench.coldstart import QUICK, Newcomer, Site, figures, run
from bench.report import ROOT
from state.exploration import LEAST_OFFERS

TINY = QUICK._replace(users=30, warm_up=80, lists=100)


def newcomer(lists: int | None, exposures: int, waste: int) -> Newcomer:
    made = Newcomer("new", 0, True)
    made.lists, made.exposures, made.waste = lists, exposures, waste
    return made


def test_medians_count_what_never_arrived_as_more_than_all() -> None:
    found = figures([newcomer(100, 5, 1), newcomer(300, 9, 0), newcomer(None, 70, 60)])
    assert (found["n"], found["lists"], found["exposures"], found["waste"]) == (3, 300, 9, 1)
    assert found["never"] == 0.333
    assert found["waste_share"] == round(61 / 84, 3)
    assert figures([newcomer(100, 5, 1), newcomer(None, 9, 0), newcomer(None, 7, 0)])["lists"] is None
    assert figures([newcomer(None, 0, 0)])["never_listed"] == 1.0


def test_users_like_their_own_taste_and_look_less_further_down() -> None:
    site = Site(TINY, 1, 0.0)
    own = [f"old-{number}" for number in range(0, 60, 3)]
    other = [f"old-{number}" for number in range(1, 60, 3)]
    events = [event for _ in range(100) for event in site._react(0, own[:5] + other[:5] + own[5:10])]
    likes = [event.video_id for event in events if event.event == "like"]
    looks = [event.video_id for event in events if event.event == "impression"]
    assert sum(video in own for video in likes) > 5 * sum(video in other for video in likes)
    assert looks.count(own[0]) > 1.5 * looks.count(own[9])


def test_what_has_arrived_is_counted_no_further() -> None:
    site = Site(TINY, 1, 1.0)
    site.ask(20, served=False)
    site.come()
    for made in site.newcomers.values():
        made.lists = 0
    site.ask(40, served=True)
    assert all(made.exposures == 0 for made in site.newcomers.values())
    assert any(made.likes for made in site.newcomers.values())


def test_equal_seeds_simulate_alike() -> None:
    assert run(TINY, [0.5]) == run(TINY, [0.5])


def test_with_exploration_no_new_video_is_left_out() -> None:
    """Those without metadata, too: the guarantee is not about taste."""
    found = run(TINY._replace(lists=20 * LEAST_OFFERS), [1.0])
    for kind in ("described", "bare"):
        assert found["exploration_1"][kind]["never_listed"] == 0.0
        assert found["exploration_1"][kind]["n"] == TINY.tastes * TINY.seeds
    assert found["exploration_0"]["loss"] == 0.0


def test_a_quick_run_prints_one_object_that_names_its_circumstances() -> None:
    command = [sys.executable, "-m", "bench.coldstart", "--quick", "--json", "--share", "0.2"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    assert {"n", "seconds", "commit", "machine", "load", "exploration_0", "exploration_0.2"} <= set(found)
    assert found["audience"] == QUICK.users
