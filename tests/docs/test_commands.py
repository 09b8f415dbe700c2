"""Every command of the README and of `docs/` is run, here or by the test that it names, or says why it cannot be.

`tests/docs/fences.py` has the marks.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded_kafka import EmbeddedKafka
from tests.agents.running_worker import RunningWorker
from tests.docs.fences import RUN, Block, all_blocks, blocks, wrong
from tests.docs.reader import Reader

BLOCKS = all_blocks()
HERE = [block for block in BLOCKS if block.language in RUN and block.mark in ("", "run as")]
#: The first start on a machine compiles the models' loops.
READY_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    with (
        EmbeddedKafka(folder / "broker") as kafka,
        RunningWorker(kafka.bootstrap, folder / "worker", "headrace", access_log="off") as worker,
    ):
        worker.wait(lambda _: "worker ready" in worker.log, READY_TIMEOUT_S)
        yield Reader(folder / "pages", kafka.bootstrap, worker.port, folder / "home")


@pytest.mark.broker
@pytest.mark.parametrize("block", HERE, ids=[block.place for block in HERE])
def test_the_command_works(reader: Reader, block: Block) -> None:
    done = reader.run(block)
    assert done.returncode == 0, f"{block.place}\n{block.script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("block", BLOCKS, ids=[block.place for block in BLOCKS])
def test_the_block_is_run_or_says_why_not(block: Block) -> None:
    assert not wrong(block), f"{block.place}: {wrong(block)}"


def test_there_are_commands_of_each_kind() -> None:
    """Were the pages not found, or no fence, all else would pass."""
    assert len(HERE) >= 8
    assert {block.page for block in BLOCKS if block.language in RUN} >= {"README.md", "docs/start/quick-start.md"}
    assert any(block.mark == "tested by" for block in BLOCKS)


PAGE = """
text

<!-- not run: needs Docker -->
```sh
docker run x
```

<!-- tested by: tests/docs/fences.py -->

```console
$ make pages   # comment
out
$ headrace wrong
```

- in a list
  ```bash
  make a \\
    b
  ```

```
headrace worker
```
"""


def test_blocks_are_found_with_their_marks() -> None:
    first, second, third, fourth = blocks(PAGE, "page.md")
    assert (first.place, first.language, first.mark, first.says) == ("page.md:5", "sh", "not run", "needs Docker")
    assert (second.mark, second.script) == ("tested by", "make pages   # comment\nheadrace wrong")
    assert (third.mark, third.script) == ("", "make a \\\n  b")
    assert fourth.language == ""


@pytest.mark.parametrize(
    ("block", "says"),
    [
        (Block("p", 1, "", "headrace worker", "", ""), "looks like a command"),
        (Block("p", 1, "text", "x\n$ ls", "", ""), "looks like a command"),
        (Block("p", 1, "", "./run.sh", "", ""), "looks like a command"),
        (Block("p", 1, "zsh", "ls", "", ""), "no language 'zsh'"),
        (Block("p", 1, "sh", "ls", "not run", "no"), "no reason"),
        (Block("p", 1, "sh", "ls", "skipped", "because I like it"), "no mark"),
        (Block("p", 1, "sh", "", "", ""), "no command"),
        (Block("p", 1, "sh", "make demo", "tested by", "tests/docs/none.py"), "not there"),
        (Block("p", 1, "sh", "headrace nonsense", "tested by", "tests/docs/fences.py"), "no 'nonsense'"),
        (Block("p", 1, "sh", "headrace blocks", "tested by", "tests/docs/fences.py"), ""),
        (Block("p", 1, "", "producers ──► interactions", "", ""), ""),
        (Block("p", 1, "json", '{"a": 1}', "", ""), ""),
    ],
)
def test_what_is_neither_run_nor_explained_is_an_error(block: Block, says: str) -> None:
    assert bool(wrong(block)) == bool(says)
    assert says in wrong(block)


def test_a_command_that_fails_is_found(tmp_path: Path) -> None:
    here = Reader(tmp_path, "localhost:1", 1, tmp_path)
    assert here.run(Block("p", 1, "sh", "false | cat\ntrue", "", "")).returncode != 0
    assert here.run(Block("p", 1, "console", "$ ls events.csv\nout", "", "")).stdout == "events.csv\n"
    assert here.run(Block("p", 1, "python", "import topics.ids; print(1)", "", "")).stdout == "1\n"
    assert here.here("curl localhost:6066/x 127.0.0.1:9092") == "curl 127.0.0.1:1/x localhost:1"
