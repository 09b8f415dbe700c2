"""The hash table of rows, against a dict."""

import random

import numpy as np

from state.codes import CodeTable


def test_adding_dropping_and_finding_is_as_with_a_dict() -> None:
    random_ = random.Random(4)
    table, known = CodeTable(), dict[int, int]()
    codes = np.zeros(20_000, np.uint64)
    free = list(range(20_000))
    for _ in range(400):
        fresh = [free.pop() for _ in range(min(len(free), random_.randrange(60)))]
        for row in fresh:
            # Few distinct low bits: long runs of neighbours in the table.
            code = (random_.randrange(2**55) << 8 | random_.randrange(4) << 1) or 2
            while code in known:
                code += 512
            codes[row] = code
            known[code] = row
        table.add(codes, np.array(fresh, np.int32))
        for code in random_.sample(sorted(known), min(len(known), random_.randrange(40))):
            row = known.pop(code)
            table.drop(codes, row)
            free.insert(0, row)
        asked = [
            *random_.sample(sorted(known), min(len(known), 50)),
            *(random_.randrange(2**63) * 2 for _ in range(20)),
        ]
        found = table.find(codes, np.array(asked, np.uint64)).tolist()
        assert found == [known.get(code, -1) for code in asked]
    everything = np.array(sorted(known), np.uint64)
    assert table.find(codes, everything).tolist() == [known[code] for code in everything.tolist()]
    assert len(known) > 1_000
