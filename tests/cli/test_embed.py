"""`headrace embed`: a catalogue goes in, the same with vectors comes out, and what is known is not computed again."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from ingestion.sentences import SentenceModel, SentencesUnavailable
from ingestion.source import read_videos


@pytest.fixture(autouse=True)
def _model() -> None:
    try:
        SentenceModel()
    except SentencesUnavailable as why:
        pytest.skip(str(why))


def run(videos: Path, to: Path, cache: Path) -> str:
    result = CliRunner().invoke(app, ["embed", str(videos), "--to", str(to), "--cache", str(cache)])
    assert result.exit_code == 0, result.output
    return result.output


def test_videos_come_out_with_vectors_and_are_computed_once(tmp_path: Path) -> None:
    videos, out, cache = tmp_path / "videos.csv", tmp_path / "out.jsonl", tmp_path / "known" / "vectors.sqlite"
    videos.write_text(
        "video_id,title,categories\na,A cat plays piano,animals|music\nb,,animals\nc,A cat plays piano,\n"
    )
    assert "3 videos, 1 texts that were new" in " ".join(run(videos, out, cache).split())
    found = dict(read_videos(out))
    assert found["a"].categories == ("animals", "music")
    assert found["a"].title == "A cat plays piano"
    assert found["a"].embedding is not None
    assert len(found["a"].embedding) == 384
    assert np.abs(np.frombuffer(found["a"].embedding, np.int8).astype(int)).max() == 127
    assert found["c"].embedding == found["a"].embedding
    assert found["b"].embedding is None, "who says nothing means nothing"
    before = out.read_bytes()
    assert "0 texts that were new" in " ".join(run(videos, out, cache).split())
    assert out.read_bytes() == before
    with sqlite3.connect(cache) as known:
        assert known.execute("SELECT count(*) FROM vectors").fetchone() == (1,)


def test_a_file_that_is_none_of_videos_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps({"user_id": "u", "video_id": "v", "event": "like", "at_ms": 1}) + "\n")
    result = CliRunner().invoke(
        app, ["embed", str(file), "--to", str(tmp_path / "out"), "--cache", str(tmp_path / "c")]
    )
    assert result.exit_code != 0
    assert not (tmp_path / "out").exists()
