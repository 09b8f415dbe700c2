"""Real logs, where they are at hand."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("HEADRACE_DATA") or Path(__file__).parents[3] / "shared" / "data")


def data_file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {name} in {DATA}: set HEADRACE_DATA to the folder of the data sets")
    return path


@pytest.fixture(scope="session")
def kuairand_log() -> Path:
    return data_file("kuairand-pure/interactions.parquet")


@pytest.fixture(scope="session")
def kuairand_videos() -> Path:
    return data_file("kuairand-pure/videos.csv")


@pytest.fixture(scope="session")
def movielens_ratings() -> Path:
    return data_file("ml-latest-small/ratings.csv")


@pytest.fixture(scope="session")
def movielens_movies() -> Path:
    return data_file("ml-latest-small/movies.csv")
