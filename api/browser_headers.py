"""Headers that let a browser do nothing with an answer but show it to the page that asked; and a `Server` without versions.

A header that a view has set stays, but for `Server`: a page that is made to be looked at brings a policy of its own.
"""

from aiohttp import web

SERVER = "headrace"
HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    # An answer is of one person, or of one moment.
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)


def secure(response: web.StreamResponse) -> None:
    """Add what is missing."""
    headers = response.headers
    for name, value in HEADERS:
        headers.setdefault(name, value)
    # aiohttp's own tells the versions of Python and of itself.
    headers["Server"] = SERVER
