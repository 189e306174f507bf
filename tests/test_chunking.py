"""Rows through a function in chunks: the same result whatever fits, nothing done twice, and one word about it."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saliency_checks.chunking import chunked, is_out_of_memory, per_pass


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


SAID = {
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 17.5 GB, other allocations: 1.0 GB)"),
    "Windows": RuntimeError("[enforce fail at alloc_cpu.cpp:72] . DefaultCPUAllocator: not enough memory: you tried"),
    "numpy": MemoryError("Unable to allocate 8.00 PiB for an array"),
}


@pytest.mark.parametrize("who", SAID)
def test_whoever_says_that_there_is_no_room_gets_less(who):
    def function(rows):
        if len(rows) > 2:
            raise SAID[who]
        return rows

    assert torch.equal(chunked(function, torch.arange(9), 9), torch.arange(9))


def test_the_cpus_own_allocator_that_finds_no_room_gets_less(caplog):
    """No machine has so much: nothing stands in for torch's error here."""

    def function(rows):
        if len(rows) > 2:
            torch.empty(1 << 50, dtype=torch.uint8)
        return rows

    assert torch.equal(chunked(function, torch.arange(9), 9), torch.arange(9))
    assert "out of memory: going on with 2 at once" in caplog.text


def test_an_error_about_something_else_is_no_lack_of_memory():
    for error in (RuntimeError("shape"), ValueError("out of memory"), KeyError("bad_alloc")):
        assert not is_out_of_memory(error)


def test_a_row_that_does_not_fit_and_any_other_error_are_raised():
    for error in (torch.OutOfMemoryError("no room"), *SAID.values(), RuntimeError("shape")):

        def function(rows, error=error):
            raise error

        with pytest.raises(type(error), match=re.escape(str(error))):
            chunked(function, torch.arange(4), 4)


def test_a_pass_takes_fewer_images_the_larger_they_are_and_at_least_one():
    small, large, huge = (per_pass(torch.empty(2, 3, size, size)) for size in (28, 224, 2000))
    assert small > large > huge == 1
