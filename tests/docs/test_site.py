"""The site builds without the network and without a warning, and no page of it asks another host for anything."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from docs import build, reference

#: Attributes by which a page makes a browser fetch something, by tag.
FETCHED = {
    **dict.fromkeys(("script", "img", "iframe", "embed", "source", "audio", "video", "track", "input"), ("src",)),
    "link": ("href",),
    "object": ("data",),
    "form": ("action",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
#: Relations of a link that name another page, which nobody fetches until somebody clicks.
NAMES_A_PAGE = {"canonical", "prev", "next", "alternate"}
_STYLE_URL = re.compile(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""")


class Page(HTMLParser):
    """What a page fetches, links to and can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self._in_style = tag == "style"
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and set(given.get("rel", "").split()) & NAMES_A_PAGE:
            return
        self.fetched += [given[name] for name in FETCHED.get(tag, ()) if name in given]
        self.fetched += [part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()]
        self.fetched += style_urls(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.fetched += style_urls(data)


def style_urls(text: str) -> list[str]:
    return [first or second for first, second in _STYLE_URL.findall(text)]


def elsewhere(url: str) -> bool:
    """Whether a browser would ask another host for it."""
    return bool(urlsplit(url).netloc)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built by what `make docs` runs; a warning fails it."""
    return build.build(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_built(site: Path) -> None:
    names = [*build.written(), "reference/configuration.md", "reference/commands.md", "reference/http.md"]
    assert "how-to/producers.md" in names
    for name in names:
        assert (site / name).with_suffix(".html").is_file(), name


def test_no_page_asks_another_host_for_anything(site: Path, pages: dict[Path, Page]) -> None:
    asked = {(path.name, url) for path, page in pages.items() for url in page.fetched if elsewhere(url)}
    assert not asked
    styles = [(path.name, url) for path in site.rglob("*.css") for url in style_urls(path.read_text(encoding="utf-8"))]
    assert not [(name, url) for name, url in styles if elsewhere(url)]
    assert any(page.fetched for page in pages.values())


def test_every_link_within_the_site_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":  # is shown for any address, so it knows no relative one
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            ids = pages[target].ids if target in pages else set()
            if not target.is_file() or (ids and parts.fragment and unquote(parts.fragment) not in ids):
                wrong.append((path.relative_to(site), link))
    assert not wrong


def test_every_page_is_in_the_navigation() -> None:
    config = (build.PAGES / build.CONFIG).read_text(encoding="utf-8")
    named = set(build.named_pages(config))
    missing = {name for name in build.written() if name not in named}
    assert not missing, f"name them in docs/{build.CONFIG}"
    assert {"reference/topics.md", "reference/commands.md"} <= named


def test_the_navigation_leaves_out_what_is_not_there() -> None:
    config = 'nav = [\n  { "A" = "a.md" },\n  { "B" = "b/c.md" },\n]\n'
    assert build.navigation(config, {"a.md": ""}) == 'nav = [\n  { "A" = "a.md" },\n]'


def test_links_to_files_lead_to_pages_that_show_them(tmp_path: Path) -> None:
    build.assemble(tmp_path)
    guarantees = (tmp_path / "pages" / "how-to" / "producers.md").read_text(encoding="utf-8")
    assert "](../source/topics/signals.py.md)" in guarantees
    shown = (tmp_path / "pages" / "source" / "topics" / "signals.py.md").read_text(encoding="utf-8")
    assert (build.ROOT / "topics" / "signals.py").read_text(encoding="utf-8").strip() in shown


def test_a_link_to_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "written", lambda: {"a/b.md": "see [this](../../nothing.py)"})
    with pytest.raises(build.BadPage, match=r"docs/a/b\.md links to \.\./\.\./nothing\.py"):
        build.all_pages()


def test_a_warning_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zensical is strict: a heading that is not there is no passing matter."""
    small = tmp_path / "docs"
    small.mkdir()
    (small / "index.md").write_text("# A\n\n[there](#nowhere)\n", encoding="utf-8")
    shutil.copyfile(build.PAGES / build.CONFIG, small / build.CONFIG)
    monkeypatch.setattr(build, "PAGES", small)
    monkeypatch.setattr(build, "written", lambda: {"index.md": (small / "index.md").read_text(encoding="utf-8")})
    monkeypatch.setattr(reference, "pages", dict)
    with pytest.raises(subprocess.CalledProcessError):
        build.build(tmp_path / "built")


def test_what_is_fetched_is_seen() -> None:
    page = Page(
        '<link rel="stylesheet" href="https://a.example/x.css"><link rel="canonical" href="https://c.example/">'
        '<style>@import "//b.example/y.css";</style><div style="background: url(https://d.example/z.png)"></div>'
        '<a href="https://e.example/">x</a><script src="local.js"></script>'
    )
    hosts = [urlsplit(url).netloc for url in page.fetched if elsewhere(url)]
    assert hosts == ["a.example", "b.example", "d.example"]
