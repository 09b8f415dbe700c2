"""A candidate: another configuration, as a file says it, of what is learned and how lists are made.

Flows in: a YAML, TOML or JSON file, beside the live settings. Flows out: a `Configuration` of each. Always holds: what the file does
not name is as it is live; all that it names was understood, is something that a candidate may change, and was checked before anything
is replayed.

    objective: choice=1,like=0.5
    exploration: 0.1
    signals: {events: {share: {target: 1, weight: 3}}}   # or the name of a file
    preset: {diversity: 0.3}                             # as an arm of an experiment has it
    without: [markov]                                    # likewise
    # arm: mixed                                         # or all of an arm of HEADRACE_EXPERIMENT
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from agents.scoring import K
from agents.worker import engine_options
from api.requests import ListRequest
from api.scenarios import require_preset
from cli.replay import BadCandidate
from infra.settings import Settings, SettingsError, variable_of
from online_models.base import ModelError
from online_models.ranker import features_of
from state.engine import EngineOptions
from state.experiment import Arm
from state.lists import Wish
from topics.signals import BadSignals, SignalTable

#: Settings that change what is learned or listed, and may differ between two replays of one log.
SETTINGS = ("positives_per_day", "seed", "objective", "exploration", "signals", "max_users", "max_videos")
#: Beside them, what an arm of an experiment has.
OF_ARMS = ("arm", "preset", "without")
KEYS = (*SETTINGS, *OF_ARMS)


@dataclass(frozen=True)
class Configuration:
    """What a replay learns with, and its lists are made with.

    Attributes
    ----------
    options : of the engine; without an experiment, whose tally is no part of learning
    arm : what its lists start from
    changed : what a file has changed, as it is written there
    """

    options: EngineOptions
    arm: Arm
    changed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wish(self) -> Wish:
        """What every list is asked for with: K videos."""
        asked: ListRequest = msgspec.convert({**self.arm.preset, "n": K}, ListRequest)
        return asked.checked().wish(self.arm)


def live_configuration(settings: Settings) -> Configuration:
    """The settings of this command, which should be those of the workers; of an experiment the first arm. Raises SettingsError."""
    options = engine_options(settings)
    experiment = options.experiment
    arm = Arm("live", 1.0) if experiment is None else experiment.arms[0]
    return Configuration(replace(options, experiment=None), arm)


def read_candidate(path: Path, settings: Settings) -> Configuration:
    """What a file makes of the live settings. Raises BadCandidate."""
    said = _read(path)
    for key in said:
        if key not in KEYS:
            raise BadCandidate(f"{path}: {_unknown(key)}")
    try:
        return _made(said, settings)
    except (SettingsError, BadSignals, ModelError, ValueError, TypeError) as error:
        raise BadCandidate(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
        found = tomllib.loads(data.decode()) if path.suffix == ".toml" else msgspec.yaml.decode(data)  # JSON is YAML
    except OSError as error:
        raise BadCandidate(f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadCandidate(f"{path} cannot be read: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadCandidate(f"{path}: expected keys with values, such as `exploration: 0.1`; keys: {', '.join(KEYS)}")
    return found


def _unknown(key: str) -> str:
    there = f"can be changed: {', '.join(KEYS)}"
    if key in Settings.model_fields:
        return f"{key} is a setting that no candidate can change: it must be as it is live, or changes no list; {there}"
    near = difflib.get_close_matches(key.lower().removeprefix("headrace_"), KEYS, n=1)
    return f"{key} is not known" + (f", did you mean {near[0]}?" if near else "") + f"; {there}"


def _made(said: Mapping[str, Any], settings: Settings) -> Configuration:
    values: dict[str, Any] = {name: said[name] for name in SETTINGS if name in said}
    table = values.get("signals")
    if isinstance(table, dict):
        del values["signals"]
    for name, value in values.items():
        if value is None or isinstance(value, (bool, dict, list)):
            raise ValueError(f"{name}: expected what {variable_of(name)} takes, got {value!r}")
    live = {name: getattr(settings, name) for name in settings.model_fields_set}
    options = engine_options(Settings(**live | values))
    if isinstance(table, dict):
        options = replace(options, signals=SignalTable.parse(msgspec.json.encode(table)))
    return Configuration(replace(options, experiment=None), _arm(said, settings), dict(said))


def _arm(said: Mapping[str, Any], settings: Settings) -> Arm:
    """The live arm with what the file says; an objective that it names is before that of an arm."""
    experiment = engine_options(settings).experiment
    arm = live_configuration(settings).arm
    if "arm" in said:
        place = None if experiment is None else experiment.place_named(str(said["arm"]))
        if experiment is None or place is None:
            arms = ", ".join(each.name for each in experiment.arms) if experiment is not None else "no experiment"
            raise ValueError(f"arm: HEADRACE_EXPERIMENT has no arm {said['arm']!r}: there is {arms}")
        arm = experiment.arms[place]
    if "objective" in said:
        arm = replace(arm, objective=None)
    if "preset" in said:
        preset = said["preset"]
        if not isinstance(preset, dict) or "n" in preset:
            raise ValueError(f"preset: expected fields of a list request but n, as lists of {K} are compared")
        try:
            require_preset(preset)
        except ValueError as error:
            raise ValueError(f"preset: {error}") from error
        arm = replace(arm, preset=preset)
    if "without" in said:
        without = said["without"]
        if not isinstance(without, list) or not all(isinstance(name, str) for name in without):
            raise ValueError("without: expected a list of features or groups of them")
        arm = replace(arm, without=features_of(without))
    return arm
