"""Links and headings of Markdown, as GitHub has them."""

import re
from collections.abc import Iterator
from pathlib import Path

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(markdown: str) -> set[str]:
    """The fragment of each heading: small letters, hyphens for spaces, no other marks, and a number for what comes again."""
    seen: dict[str, int] = {}
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", markdown)):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def local_links(markdown: str) -> Iterator[tuple[str, str]]:
    """Path and fragment of each link that stays in the repository; either may be empty."""
    for link in _LINK.findall(_FENCE.sub("", markdown)):
        if not re.match(r"[a-z]+:", link):
            path, _, fragment = link.partition("#")
            yield path, fragment


def leads_somewhere(page: Path, path: str, fragment: str) -> bool:
    """Whether a link on `page` has a file, and a heading there, to go to."""
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    return not fragment or (target.suffix == ".md" and fragment in anchors(target.read_text(encoding="utf-8")))
