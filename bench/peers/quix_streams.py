"""The environment of Quix Streams: its pins of confluent-kafka and pydantic are not ours, so it has one of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements-quix.txt")


def build(folder: Path) -> str:
    """Return its Python; makes the environment when `folder` has none with these very requirements."""
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if not installed.exists() or installed.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS)],
        ):
            subprocess.run(command, check=True, stdout=sys.stderr)
        installed.write_text(wanted)
    return str(python)
