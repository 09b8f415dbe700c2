"""Names say what is in files, which of them are replaced, and what is missing between them."""

from ingestion.lake.files import LAST_MS, LakeFile, holes, hour_of, overlaps, parse, replaced
from tests.ingestion.lake.made import HOUR_MS, NOON_MS


def file(first: int, last: int, hour: str = "12", dataset: str = "interactions", partition: int = 0) -> LakeFile:
    return LakeFile(dataset, partition, first, last, "2026-09-21", hour)


def test_names_are_read_as_they_are_written_and_others_are_passed_over() -> None:
    files = [
        file(0, 9),
        file(10, 10, dataset="interactions.dead", partition=11),
        file(3, 4, dataset="refused/topic=a.b"),
    ]
    assert parse(each.path for each in files) == sorted(files)
    other = [
        "_tmp/run/part",
        "_claims/interactions/0-1.json",
        "interactions/date=2026-09-21/hour=12/x.parquet",
        "a.parquet",
    ]
    assert parse([*other, files[0].path + ".part", "_old/" + files[0].path, ".x/" + files[0].path]) == []


def test_hours_are_of_utc_and_of_any_time() -> None:
    assert hour_of(NOON_MS) == hour_of(NOON_MS + HOUR_MS - 1)
    assert hour_of(NOON_MS + HOUR_MS)[1] == "13"
    assert (hour_of(-1), hour_of(2**62)) == (("1970-01-01", "00"), hour_of(LAST_MS))


def test_a_file_is_replaced_by_one_that_has_all_of_it() -> None:
    small, merged = [file(0, 4), file(5, 9), file(10, 12)], file(0, 9)
    assert replaced([*small, merged]) == set(small[:2])
    assert replaced([merged, file(0, 20)]) == {merged}
    assert replaced([*small, file(0, 9, partition=1), file(0, 9, dataset="recommendations")]) == set()
    # No merge goes beyond an hour, so this is none.
    assert replaced([file(0, 4), file(0, 9, hour="13")]) == set()


def test_holes_and_overlaps() -> None:
    assert holes([file(0, 4), file(5, 9), file(12, 15)]) == [(10, 11)]
    assert overlaps([file(0, 4), file(4, 9), file(10, 11)]) == [file(4, 9)]
