"""The cluster id and the record of the last start, without a broker."""

import base64
import json
from pathlib import Path

import pytest

from infra.embedded_kafka import BrokerError, EmbeddedKafka, new_cluster_id, read_record


def test_a_cluster_id_is_16_bytes_and_no_option() -> None:
    # One in 64 would begin with a dash if nothing prevented it: all of 2,000 by chance fine is one in 10^13.
    for cluster_id in [new_cluster_id() for _ in range(2_000)]:
        assert len(base64.urlsafe_b64decode(cluster_id + "==")) == 16
        assert not cluster_id.startswith("-")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2, "bootstrap": "a:1", "port": 1, "cluster_id": "x"}'])
def test_a_record_that_cannot_be_used_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "broker.json").write_text(text)
    assert read_record(tmp_path) == {}


def test_a_record_is_read_back(tmp_path: Path) -> None:
    record = {"schema": 1, "bootstrap": "127.0.0.1:9", "port": 9, "cluster_id": "x"}
    (tmp_path / "broker.json").write_text(json.dumps(record))
    assert read_record(tmp_path) == record


def test_a_folder_that_kafka_would_misread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="comma"):
        EmbeddedKafka(tmp_path / "a,b").start()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "kafka").write_text("a file where the folder should be")
    with pytest.raises(BrokerError, match=r"cannot use .*kafka"):
        EmbeddedKafka(tmp_path).start()
