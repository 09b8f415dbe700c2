"""Build the site: `python -m docs.build`, or `make docs`. Asks nothing of the network, and fails on any warning.

Pages of `docs/`, the changelog and what `docs.reference` makes of the code flow in; `build/docs/site` flows out, which any web
server shows, and a browser alone, but for its search. Always holds: every link stays within the site or leads to the web. A link to a
file of the repository leads to a page that shows the file.

Zensical is given a folder of its own, so that nothing that is made lies among what is written.
"""

import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from docs import reference

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs"
BUILT = ROOT / "build" / "docs"
CONFIG = "zensical.toml"
#: A link's target, in the text or by name, less its fragment.
_LINK = re.compile(r"(\]\(|^\[[^\]]+\]: )(?!https?:|mailto:|#)([^)#\s]+)", re.MULTILINE)
#: A page that the navigation names: one in a line.
_NAMED = re.compile(r'"([\w/.-]+\.md)"')
_FENCE = re.compile(r"^(```+).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LANGUAGES = {
    ".py": "python",
    ".json": "json",
    ".js": "javascript",
    ".sh": "bash",
    ".toml": "toml",
    ".yml": "yaml",
    ".yaml": "yaml",
}


class BadPage(ValueError):
    """A page links to what is not there; the message names both."""


def written() -> dict[str, str]:
    """Markdown of the pages that are written, by path within the site."""
    found = {
        path.relative_to(PAGES).as_posix(): path.read_text(encoding="utf-8") for path in sorted(PAGES.rglob("*.md"))
    }
    return found | {"changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")}


def all_pages() -> dict[str, str]:
    """Markdown of all pages, links led to where they are within the site.

    Raises
    ------
    BadPage
        A link names a file that is not there.
    """
    whole = written() | reference.pages()
    shown: dict[str, str] = {}
    made = {page: _led(page, text, whole, shown) for page, text in whole.items()}
    return made | shown


def navigation(config: str, pages: dict[str, str]) -> str:
    """The configuration, without the lines that name pages which are not there."""
    return "\n".join(
        line for line in config.splitlines() if (named := _NAMED.search(line)) is None or named[1] in pages
    )


def named_pages(config: str) -> Iterator[str]:
    """Pages that the navigation names."""
    return (named[1] for named in map(_NAMED.search, config.splitlines()) if named is not None)


def _led(page: str, text: str, whole: dict[str, str], shown: dict[str, str]) -> str:
    """A page's text, in which links to files of the repository lead to pages that show these, which are added to `shown`."""
    folder = posixpath.dirname(page)

    def lead(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        if target in whole or (not target.startswith("../") and (PAGES / target).is_file()):
            return match[0]
        # the changelog lies above the pages
        path = posixpath.normpath(posixpath.join("docs", target)) if page != "changelog.md" else match[2]
        if not (ROOT / path).is_file():
            raise BadPage(f"docs/{page} links to {match[2]}, which is not there")
        name = f"source/{path}.md"
        shown.setdefault(name, _source(path))
        return match[1] + posixpath.relpath(name, folder or ".")

    pieces, end = [], 0
    for fence in _FENCE.finditer(text):
        pieces += [_LINK.sub(lead, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, _LINK.sub(lead, text[end:])])


def _source(path: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    language = _LANGUAGES.get(Path(path).suffix, "text")
    # it is shown for who follows a link; search would find it before the pages
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
    return f"{head}{fence}{language}\n{text.rstrip()}\n{fence}\n"


def assemble(folder: Path) -> None:
    """Lay all that Zensical is given into a folder that is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = all_pages()
    for name, text in pages.items():
        path = folder / "pages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for picture in sorted((*PAGES.rglob("*.png"), *PAGES.rglob("*.svg"), *PAGES.rglob("*.css"))):
        path = folder / "pages" / picture.relative_to(PAGES)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, path)
    config = (PAGES / CONFIG).read_text(encoding="utf-8")
    (folder / CONFIG).write_text(navigation(config, pages), encoding="utf-8")


def build(folder: Path = BUILT) -> Path:
    """Build the site into a folder's `site`; raises CalledProcessError where Zensical warns of anything."""
    assemble(folder)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=folder, check=True)
    return folder / "site"


if __name__ == "__main__":
    sys.stdout.write(f"{build() / 'index.html'}\n")
