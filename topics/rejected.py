"""Why a record is refused: one exception and the closed list of its reasons, which are also metric labels."""

from enum import StrEnum

MAX_DETAIL_CHARS = 200  # a detail quotes bad input, which may be megabytes; headers and logs stay small


class Reason(StrEnum):
    """Every way in which a record can be wrong; the value travels in dead letters and HTTP answers."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    MALFORMED_JSON = "malformed_json"
    SCHEMA_VERSION = "schema_version"
    WRONG_TYPE = "wrong_type"
    MISSING_FIELD = "missing_field"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_EVENT = "unknown_event"
    BAD_ID = "bad_id"
    BAD_NUMBER = "bad_number"
    BAD_TIME = "bad_time"
    KEY_MISMATCH = "key_mismatch"
    WRONG_PARTITION = "wrong_partition"
    STATE_FULL = "state_full"
    MALFORMED_BLOCK = "malformed_block"


class Rejected(ValueError):
    """A record that must not be processed; the caller dead-letters it or answers 4xx, and goes on.

    Parameters
    ----------
    reason : which rule it breaks
    detail : what exactly was found, cut to `MAX_DETAIL_CHARS`
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        if len(detail) > MAX_DETAIL_CHARS:
            detail = detail[: MAX_DETAIL_CHARS - 1] + "…"
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
