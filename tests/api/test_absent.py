"""The memory of what is not there."""

from api.absent import Absent


def test_it_forgets_by_time_and_by_number_and_when_told() -> None:
    now_s = [0.0]
    absent = Absent(1.0, 3, clock=lambda: now_s[0])
    absent.add(b"a")
    assert b"a" in absent
    assert b"b" not in absent
    now_s[0] = 0.9
    absent.add(b"b")
    absent.add(b"a")  # anew: b is the oldest now
    absent.add(b"c")
    now_s[0] = 1.5
    assert b"a" in absent
    absent.add(b"d")
    assert [key for key in (b"a", b"b", b"c", b"d") if key in absent] == [b"a", b"c", b"d"]
    assert len(absent) == 3
    absent.discard(b"c")
    absent.discard(b"never there")
    assert b"c" not in absent
    now_s[0] = 2.0
    assert b"a" not in absent
