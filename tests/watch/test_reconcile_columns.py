"""What the proof does with columns, against the same done one by one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from samples import examples

from consumer.watch.reconcile import compare
from consumer.watch.reconcile.places import Fault, ranges
from consumer.watch.reconcile.topics import Events, Letters


@examples(300)
@given(st.lists(st.integers(0, 60)))
def test_ranges_are_the_offsets_in_as_few_runs_as_there_are(offsets: list[int]) -> None:
    found = ranges(np.array(offsets, np.int64))
    assert [offset for first, last in found for offset in range(first, last + 1)] == sorted(set(offsets))
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(found))
    fault = Fault("not_stored", "t", 3, len(offsets), found)
    told = fault.told().removeprefix("not stored t/3 offsets ")
    assert [tuple(map(int, (run.split("-") * 2)[:2])) for run in told.split(", ") if run] == [*found]
    if len(found) > 2:
        assert fault.told(2).endswith(f" and {len(found) - 2} more ranges")


@examples(300)
@given(st.data())
def test_columns_say_what_one_by_one_would(data: st.DataObject) -> None:
    """Events of few transactions, offsets and predictions, so that all meet; each prediction has a row at the most."""
    count = data.draw(st.integers(0, 12))
    numbers = st.lists(st.integers(0, 4), min_size=count, max_size=count)
    sources, predictions = data.draw(numbers), data.draw(numbers)
    due = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    rows = data.draw(st.sets(st.integers(0, count - 1), max_size=count)) if count else set()
    rows = {at for at in rows if not any(predictions[other] == predictions[at] for other in rows if other < at)}
    letters = data.draw(st.lists(st.integers(0, 4), max_size=4))
    column = np.arange(count)
    events = Events(column, np.array(sources, np.int64), np.array(predictions, np.int64), column[:0])
    stored = np.isin(column, list(rows))

    def wanting(at: int) -> bool:
        later_row = any(predictions[row] == predictions[at] and row > at for row in rows)
        later_due = any(
            due[each] and each not in rows and predictions[each] == predictions[at] for each in range(at + 1, count)
        )
        return due[at] and at not in rows and not later_row and not later_due

    missing = compare.without_row(events, stored, np.array(due, bool))
    assert missing.tolist() == [at for at in range(count) if wanting(at)]
    told = Letters(column[:0], np.array(letters, np.int64), column[:0], 0, 0, 0)
    pairs = [*zip(sources, predictions, strict=True)]
    twice = {each for each, name in pairs if pairs.count((each, name)) > 1 or each in letters}
    twice |= {each for each in letters if letters.count(each) > 1}
    assert compare.twice(events, told).tolist() == sorted(twice)
    lost = compare.unaccounted(np.arange(5), events, told, np.array([3], np.int64))
    assert lost.tolist() == [each for each in range(5) if each not in {*sources, *letters, 3}]
