"""Every link from the docs to a file or a heading of this repository leads there."""

from pathlib import Path

import pytest

from tests.infra.markdown import anchors, leads_somewhere, local_links

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "infra").rglob("*.md")])


def is_made(page: Path, path: str) -> bool:
    """Whether it leads to a page that is made of the code when the site is built, whose links tests/docs/test_site.py follows."""
    return (page.parent / path).resolve().is_relative_to(ROOT / "docs" / "reference")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    dead = [
        f"{path}#{fragment}"
        for path, fragment in local_links(page.read_text(encoding="utf-8"))
        if not (is_made(page, path) or leads_somewhere(page, path, fragment))
    ]
    assert not dead, f"{page.name}: {dead}"


def test_headings_are_found_as_github_names_them() -> None:
    text = "# A worker's `disk`, full\n## Twice\n## Twice\n```\n# a comment\n```\n[x](#twice-1) [y](https://site.example#z)"
    assert anchors(text) == {"a-workers-disk-full", "twice", "twice-1"}
    assert list(local_links(text)) == [("", "twice-1")]


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Here\n")
    assert leads_somewhere(page, "", "here")
    assert not leads_somewhere(page, "", "there")
    assert not leads_somewhere(page, "other.md", "")
