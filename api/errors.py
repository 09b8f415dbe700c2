"""What a client did wrong, or has to wait for, as an answer."""

from collections.abc import Mapping


class Problem(Exception):
    """An answer that is not what was asked for.

    Parameters
    ----------
    status : HTTP status
    reason : one word for machines
    detail : one sentence for people
    headers : sent along
    """

    def __init__(self, status: int, reason: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.headers = dict(headers or {})


def bad_request(reason: str, detail: str) -> Problem:
    """400: the request itself is wrong."""
    return Problem(400, reason, detail)


def not_found(what: str) -> Problem:
    """404."""
    return Problem(404, "not_found", what)


def misdirected(detail: str) -> Problem:
    """421: another worker can answer."""
    return Problem(421, "misdirected", detail)


def unavailable(detail: str, retry_after_s: int = 1) -> Problem:
    """503: nothing is wrong with the request, try again soon."""
    return Problem(503, "unavailable", detail, {"Retry-After": str(retry_after_s)})
