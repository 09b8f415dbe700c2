"""Open files: the soft limit is raised as far as the hard one allows, and never lowered."""

import subprocess
import sys

import pytest

CODE = """
import resource, sys
from infra.open_files import allow_open_files
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(allow_open_files(wanted), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "expected"),
    [
        (256, 1024, 512, (512, 512, 1024)),
        (256, 1024, 4096, (1024, 1024, 1024)),
        (512, 1024, 100, (512, 512, 1024)),
    ],
)
def test_as_many_as_wanted_or_as_are_allowed(soft: int, hard: int, wanted: int, expected: tuple[int, int, int]) -> None:
    # In a process of its own: the hard limit cannot be raised again.
    command = [sys.executable, "-c", CODE, str(soft), str(hard), str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert tuple(map(int, done.stdout.split())) == expected
