"""Threads of native code, and of torch's operations beside it."""

import pytest
import torch

from twohot.kernels.threads import ONE_THREAD_NUMBERS, native_threads, one_torch_thread


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_small_work_of_torch_has_one_thread_and_native_code_all():
    assert native_threads() == 3
    with one_torch_thread(ONE_THREAD_NUMBERS):
        assert (torch.get_num_threads(), native_threads()) == (1, 3)
        with one_torch_thread(1):
            assert (torch.get_num_threads(), native_threads()) == (1, 3)
        assert (torch.get_num_threads(), native_threads()) == (1, 3)
    assert (torch.get_num_threads(), native_threads()) == (3, 3)


def test_large_work_has_the_threads_that_torch_was_given():
    with one_torch_thread(ONE_THREAD_NUMBERS + 1):
        assert (torch.get_num_threads(), native_threads()) == (3, 3)
        torch.set_num_threads(2)
        assert native_threads() == 2
    assert torch.get_num_threads() == 2


def test_an_error_ends_it():
    with pytest.raises(ZeroDivisionError), one_torch_thread(1):
        raise ZeroDivisionError
    assert (torch.get_num_threads(), native_threads()) == (3, 3)
