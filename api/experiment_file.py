"""The file of an experiment: arms, which share of the users each has, and what it does.

Flows in: a JSON object. Flows out: an `Experiment`. Always holds: all that an arm does was checked when the file was read, so that a
mistake stops the start and not an answer.

    {"name": "home-mix", "arms": [
      {"name": "control", "share": 8},
      {"name": "mixed", "share": 1, "preset": {"diversity": 0.3}},
      {"name": "liked", "share": 1, "objective": "choice=1,like=0.5", "without": ["markov"]}]}
"""

from typing import Annotated, Any

import msgspec

from api.scenarios import require_preset
from online_models.base import ModelError
from online_models.ranker import features_of
from state.experiment import Arm, Experiment
from state.objective import BadObjective, Objective

_Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,60}$")]


class BadExperiment(ValueError):
    """The text is no experiment; the message names the arm and the field."""


class _Arm(msgspec.Struct, forbid_unknown_fields=True):
    """An arm as it is written; see `state.experiment.Arm`. `without` names features and groups of them."""

    name: _Name
    share: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    preset: dict[str, Any] = {}
    objective: str | None = None
    without: tuple[str, ...] = ()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """An experiment as it is written. Without a salt, its name is the salt. The first arm is the control."""

    name: _Name
    arms: Annotated[list[_Arm], msgspec.Meta(min_length=2, max_length=10)]
    salt: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


def parse(text: bytes) -> Experiment:
    """Read an experiment. Raises BadExperiment."""
    try:
        found = msgspec.json.decode(text, type=_File)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadExperiment(str(error)) from error
    names = [arm.name for arm in found.arms]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise BadExperiment(f"arms: {', '.join(doubled)} is there more than once")
    return Experiment(found.name, found.salt or found.name, tuple(_checked(arm) for arm in found.arms))


def _checked(arm: _Arm) -> Arm:
    field = "preset"
    try:
        require_preset(arm.preset)
        field = "objective"
        objective = None if arm.objective is None else Objective.parse(arm.objective)
        field = "without"
        without = features_of(arm.without)
    except (ValueError, BadObjective, ModelError) as error:
        raise BadExperiment(f"arm {arm.name}: {field}: {error}") from error
    return Arm(arm.name, arm.share, arm.preset, objective, without)
