"""The notebooks run on a small log, draw what they say, and are kept without outputs."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent.parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
#: Enough for a few ranked positives an arm, of the made-up audience: the real log need not be at hand.
ROWS = 2_500
PLOTS = {"exploratory_analysis": 6, "model_experiments": 5}


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(PLOTS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_cleared(path: Path) -> None:
    nbformat.validate(nbformat.read(path, as_version=4))  # type: ignore[no-untyped-call] # it has no types
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert code
    assert all(not cell["outputs"] and cell["execution_count"] is None and not cell["metadata"] for cell in code), (
        f"jupyter nbconvert --clear-output --inplace {path.name}"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_draws(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path))  # empty: the made-up audience
    monkeypatch.setenv("NOTEBOOK_ROWS", str(ROWS))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    book = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call] # it has no types
    NotebookClient(book, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    said = "".join(
        output["text"] for output in outputs if output["output_type"] == "stream" and output["name"] == "stdout"
    )
    assert f"made-up audience: {ROWS:,} events" in said
    # a warning of numpy or matplotlib means a plot that is not what it should be
    assert not [
        output["text"] for output in outputs if output["output_type"] == "stream" and output["name"] == "stderr"
    ]
    pictures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= PLOTS[path.stem]
    for picture in pictures:
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"), np.float64)
        assert min(drawn.shape) > 150
        assert drawn.std() > 5  # something is drawn
