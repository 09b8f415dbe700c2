"""The report: its pictures can be looked at, and its page has the study's numbers and needs nothing else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context, rcParams
from PIL import Image
from typer.testing import CliRunner

from cli.main import app
from cli.pictures import DPI, WIDTH, curve, date, draw, short_date
from cli.report import ReportFolderError, ReportUnavailable, prepare, write_report
from cli.study import Study
from ingestion.event_table import EventTable
from ingestion.simulate import Audience
from ingestion.source import read_event_table

DAY_MS = 86_400_000
PICTURES = ("recall.png", "arms.png", "cold.png", "ablation.png")
#: Elements that have no end.
VOID = ("meta", "img")


def log(path: Path, n: int) -> Path:
    lines = [
        json.dumps({"user_id": e.user_id, "video_id": e.video_id, "event": e.event, "at_ms": e.at_ms})
        for e in Audience(seed=5, users=40, videos=50).events(n)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> EventTable:
    return read_event_table(log(tmp_path_factory.mktemp("log") / "events.jsonl", 2_500))


@pytest.fixture(scope="module")
def study(table: EventTable) -> Study:
    """Two seeds, and served without one group of features."""
    study = Study(table, [], table.positive("like,share"), ablate=["factors"], options={"warmup": 0.4, "rank_every": 2})
    study.run(range(1, 3))
    return study


@pytest.fixture(scope="module")
def written(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, in a folder two levels of which were missing."""
    return write_report(study, tmp_path_factory.mktemp("report") / "a" / "b", "log")


@pytest.fixture(scope="module")
def plain(table: EventTable) -> Study:
    """One seed, served and popularity only, few ranked positives."""
    study = Study(table, [], table.positive("like"), arms=["popularity"], options={"rank_every": 25})
    study.run([1])
    return study


class Page(HTMLParser):
    """What a browser would find: numbers, pictures, and whether every element ends."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[float] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "data":
            self.numbers.append(float(dict(attrs)["value"] or ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_every_picture_can_be_looked_at(written: Path) -> None:
    assert written.name == "report.html"
    assert {path.name for path in written.parent.iterdir()} == {"report.html", *PICTURES}
    for name in PICTURES:
        image = Image.open(written.parent / name)
        image.load()
        assert image.width == round(WIDTH * DPI)
        assert image.width / 5 < image.height < image.width * 1.2
        # White paper, dark text, and more than a few shades between.
        grey = np.asarray(image.convert("L"))
        assert grey.max() == 255
        assert grey.min() < 90
        assert 0.005 < (grey < 200).mean() < 0.5
        # Nothing is cut off.
        assert min(grey[:8].min(), grey[-8:].min(), grey[:, :8].min(), grey[:, -8:].min()) == 255


def test_the_page_has_every_number(study: Study, written: Path) -> None:
    page = read(written)
    body = json.loads(json.dumps(study.to_json()))
    expected = [
        *(means[name] for means in body["arms"].values() for name in ("recall@10", "ndcg@10", "mrr", "se")),
        *(means["recall@10"] for group in ("cold", "warm", "young") for means in body[group]["arms"].values()),
        *(number for ablation in body["ablations"].values() for number in ablation.values()),
        *(body[name] for name in ("positives_per_day", "learn_us", "rank_us")),
    ]
    assert len(expected) > 30
    assert not set(expected) - set(page.numbers)
    for arm, means in body["arms"].items():
        assert f"{means['recall@10']:.4f} ± {means['se']:.4f}" in page.text
        if arm != "served":
            ratio = body["served_ratio"][arm]
            assert f"{ratio['ratio']:.2f} ± {ratio['se']:.2f}" in page.text
    for fact in (f"{body['n']:,}", f"{body['events']:,}", "the first 40%", "one positive in 2", "seeds2", "lagnone"):
        assert fact in page.text
    assert f"halves every {body['popularity_half_life']:,.0f} positives" in page.text


def test_the_page_is_whole_and_asks_for_nothing(written: Path) -> None:
    page = read(written)
    assert not page.open
    images = [given for tag, given in page.tags if tag == "img"]
    assert len(images) == 4
    for given in images:
        assert (given["src"] or "").startswith("data:image/png;base64,")
        assert len(given["alt"] or "") > 30
        assert int(given["width"] or 0) == round(WIDTH * DPI)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    text = re.sub(r'src="data:[^"]*"', "", written.read_text())
    for word in ("http", "url(", "@import", "//"):
        assert word not in text


def test_a_title_is_only_text(plain: Study, tmp_path: Path) -> None:
    title = "<script>alert('1')</script> & \"log\""
    page = read(write_report(plain, tmp_path, title))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(title) == 2


def test_what_was_not_left_out_has_no_picture(study: Study, plain: Study, tmp_path: Path) -> None:
    write_report(study, tmp_path, "first")
    path = write_report(plain, tmp_path, "second")
    assert {file.name for file in tmp_path.iterdir()} == {"report.html", "recall.png", "arms.png", "cold.png"}
    assert "Without a part" not in read(path).text


def test_a_study_makes_the_same_pictures_however_matplotlib_is_set_up(plain: Study) -> None:
    first = [picture.png for picture in draw(plain)]
    with rc_context({"font.size": 20.0, "axes.facecolor": "black"}):
        before = dict(rcParams.copy())
        assert [picture.png for picture in draw(plain)] == first
        assert dict(rcParams.copy()) == before


def test_a_curve_is_the_whole_recall_in_stretches(study: Study) -> None:
    for arm in study.names:
        ends, means, errors = curve(study, arm)
        sizes = np.diff(ends, prepend=0)
        assert ends[-1] == study.runs[0].n
        assert np.average(means, weights=sizes) == pytest.approx(study.arms()[arm]["recall@10"], abs=1e-5)
        assert np.all(errors >= np.sqrt(means * (1.0 - means) / sizes))


def test_a_date_is_as_exact_as_the_log_is_long() -> None:
    at_ms = 8 * DAY_MS + 3_600_000
    assert date(at_ms) == "9 Jan 1970"
    assert short_date(at_ms, 10 * 365 * DAY_MS) == "Jan 1970"
    assert short_date(at_ms, 30 * DAY_MS) == "9 Jan"
    assert short_date(at_ms, DAY_MS) == "9 Jan 01:00"
    assert date(2**53) == "31 Dec 9999"  # the latest that a file may hold is far beyond


def test_one_positive_that_nobody_finds_can_be_reported(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps({"user_id": "u", "video_id": "v", "event": "like", "at_ms": DAY_MS}) + "\n")
    table = read_event_table(path)
    study = Study(table, [], table.positive("like"), options={"warmup": 0.0})
    study.run([1])
    page = read(write_report(study, tmp_path / "report", "one"))
    assert "nan" not in page.text.lower()
    assert page.text.count("—") == len(study.names) - 1 + 2 * len(
        study.names
    )  # ratios to 0; no warm user, no young video


def test_a_file_is_no_folder(plain: Study, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ReportFolderError, match=r"is a file or within one.*name another path"):
            write_report(plain, path, "log")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_can_be_looked_at_before_the_study_runs(tmp_path: Path) -> None:
    prepare(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_takes_no_files_is_named(plain: Study, tmp_path: Path) -> None:
    (tmp_path / "arms.png").mkdir()
    with pytest.raises(ReportFolderError, match=rf"{re.escape(str(tmp_path))} \(Is a directory\).*name another folder"):
        write_report(plain, tmp_path, "log")


def test_without_matplotlib_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cli.report.find_spec", lambda _name: None)
    with pytest.raises(ReportUnavailable, match="pip install matplotlib"):
        prepare(tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_the_command_writes_it(tmp_path: Path) -> None:
    command = ["evaluate", "--events", str(log(tmp_path / "log.jsonl", 400)), "--plot", str(tmp_path / "report")]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    assert "report.html" in ran.stderr
    assert "log.jsonl, default" in read(tmp_path / "report" / "report.html").text
