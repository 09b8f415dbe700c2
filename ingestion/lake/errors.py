"""What the lake ends with; each message says what to do."""


class LakeError(ValueError):
    """The lake cannot be used as it is."""


class LakeTaken(LakeError):
    """Another process writes to the lake."""
