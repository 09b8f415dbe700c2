"""Fenced commands of the README and of `docs/`, and what is to be done with each.

A block in `sh`, `bash`, `console` or `python` is run as it stands, unless a comment in the line before its fence says otherwise:

- `<!-- tested by: FILE, FILE -->`: another test runs it, or another page whose block is run; each command's second word must stand in
  one of the files;
- `<!-- run as: COMMAND -->`: this is run instead, for a command that would not end or takes too long;
- `<!-- not run: REASON -->`: it cannot be run here.

A block without a language whose lines look like commands is an error, so that nothing is passed over by leaving the language out.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
SHELL = ("sh", "bash", "console")
RUN = (*SHELL, "python")
#: Languages of what is read and not run.
SHOWN = (
    "json",
    "text",
    "yaml",
    "toml",
    "sql",
    "js",
    "javascript",
    "csv",
    "ini",
    "http",
    "promql",
    "hcl",
    "dockerfile",
    "diff",
    "xml",
)
MARKS = ("tested by", "run as", "not run")
_COMMANDS = frozenset(
    [
        *(
            "headrace",
            "make",
            "curl",
            "pip",
            "python",
            "python3",
            "docker",
            "kubectl",
            "helm",
            "terraform",
            "kcat",
            "npm",
        ),
        *("npx", "node", "git", "apt-get", "export", "cd", "kafka-topics"),
    ]
)
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<text>.*?)^ *(?P=fence)\s*$", re.MULTILINE | re.DOTALL
)
_MARK = re.compile(r"<!--\s*([\w ]+?):\s*(.+?)\s*-->[ \t]*\n\s*\Z")


class Block(NamedTuple):
    """A fenced block.

    Attributes
    ----------
    page : path within the repository
    line : of the fence, from 1
    language : empty for none
    mark, says : the comment before it; empty for none
    """

    page: str
    line: int
    language: str
    text: str
    mark: str
    says: str

    @property
    def place(self) -> str:
        """Where it stands, for messages and ids of tests."""
        return f"{self.page}:{self.line}"

    @property
    def script(self) -> str:
        """What is given to bash or Python."""
        return self.says if self.mark == "run as" else self.written

    @property
    def written(self) -> str:
        """What the reader is to type."""
        if self.language != "console":
            return self.text
        return "\n".join(line[2:] for line in self.text.splitlines() if line.startswith("$ "))

    @property
    def commands(self) -> list[list[str]]:
        """Words of each line that begins a command."""
        return [words for line in self.written.splitlines() if (words := line.split("#")[0].split())]


def pages() -> list[Path]:
    """The README and all that is written for the site."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(text: str, page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in their order."""
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        mark = _MARK.search(before)
        indent = len(match["indent"])
        body = "\n".join(line[indent:] if not line[:indent].strip() else line for line in match["text"].splitlines())
        words = match["info"].split()
        yield Block(
            page,
            before.count("\n") + 1,
            words[0] if words else "",
            body,
            mark[1] if mark else "",
            mark[2] if mark else "",
        )


def all_blocks() -> list[Block]:
    """Every fenced block of every page."""
    return [
        block
        for path in pages()
        for block in blocks(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]


def wrong(block: Block) -> str:
    """What is wrong with how a block is classified; empty if nothing is."""
    if block.language not in (*RUN, *SHOWN, ""):
        return f"no language {block.language!r} is known: add it to RUN or SHOWN in {Path(__file__).name}"
    if block.language not in RUN:
        looks = [line for line in block.text.splitlines() if _looks_like_a_command(line)]
        return f"looks like a command, and says no language that is run: {looks[0]!r}" if looks else ""
    if block.mark and block.mark not in MARKS:
        return f"no mark {block.mark!r} is known: {', '.join(MARKS)}"
    if block.mark == "not run" and len(block.says) < 8:
        return f"says no reason: {block.says!r}"
    if block.mark == "tested by":
        return _untested(block)
    return "" if block.script.strip() else "has no command"


def _looks_like_a_command(line: str) -> bool:
    words = line.removeprefix("$ ").split()
    return bool(words) and (line.startswith("$ ") or words[0] in _COMMANDS or words[0].startswith(("./", ".venv/")))


def _untested(block: Block) -> str:
    files = [ROOT / name.strip() for name in block.says.split(",")]
    missing = [file for file in files if not file.is_file()]
    if missing:
        return f"names {missing[0].relative_to(ROOT)}, which is not there"
    tests = "\n".join(file.read_text(encoding="utf-8") for file in files)
    for words in block.commands:
        # `headrace WORD`, `make WORD`; else the program itself, by its file's name
        word = words[1] if words[0] in ("headrace", "make") and len(words) > 1 else Path(words[0]).name
        if not re.search(rf"\b{re.escape(word)}\b", tests):
            return f"{' '.join(words[:2])}: no {word!r} in {block.says}"
    return ""
