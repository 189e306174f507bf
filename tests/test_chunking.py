"""Rows through a function in chunks: the same result whatever fits, nothing done twice, and one word about it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saliency_checks.chunking import chunked, per_pass


@given(n=st.integers(0, 30), size=st.integers(1, 40), room=st.integers(1, 40))
def test_the_result_does_not_depend_on_what_fits(n, size, room):
    done = []

    def double(rows):
        if len(rows) > room:
            raise torch.OutOfMemoryError("no room")
        done.extend(rows.tolist())
        return 2 * rows

    rows = torch.arange(n)
    assert torch.equal(chunked(double, rows, size), 2 * rows)
    assert done == rows.tolist()  # each once, in order


def test_the_size_that_fits_is_kept_and_said_once(caplog):
    sizes = []

    def function(rows):
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("no room")
        return rows

    chunked(function, torch.arange(12), 100)  # no use in trying less than a hundred again and again
    assert sizes == [12, 6, 3, 3, 3, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory: going on with 6 at once",
        "out of memory: going on with 3 at once",
    ]


def test_a_row_that_does_not_fit_and_any_other_error_are_raised():
    for error in (torch.OutOfMemoryError("no room"), RuntimeError("shape")):

        def function(rows, error=error):
            raise error

        with pytest.raises(type(error), match=str(error)):
            chunked(function, torch.arange(4), 4)


def test_a_pass_takes_fewer_images_the_larger_they_are_and_at_least_one():
    small, large, huge = (per_pass(torch.empty(2, 3, size, size)) for size in (28, 224, 2000))
    assert small > large > huge == 1
