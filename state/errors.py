"""What can go wrong with state; each message ends with what the operator does."""


class StateError(Exception):
    """Base of the errors of kept state."""


class StateFull(StateError):
    """A bound is reached and nothing may be evicted."""


class SchemaMismatch(StateError):
    """A row was written by a version of Headrace that this one cannot read."""


class CutOutOfRange(StateError):
    """The log does not hold the offsets from which a shard has to go on."""


class TopicReplaced(StateError):
    """A topic is not the one that the state was learned from, though its name is the same."""
