"""Pooled memory of large gradients: who has it, who keeps it, who gives it back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import Tensor

from two_hot_truth import normal
from twohot import _native
from twohot.kernels.memory import empty_from_pool
from twohot.losses import ValueBins, release_memory, two_hot_cross_entropy

MEGABYTE = 1 << 20
HUGE_PAGE = 2 * MEGABYTE  # memory comes in these
BINS = ValueBins.amago2(64)


@pytest.fixture(autouse=True, scope="module")
def _earlier_objects_set_aside():
    """What there is before these tests costs most of the time of collecting garbage."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _nothing_kept(_earlier_objects_set_aside):
    gc.collect()
    release_memory()
    yield
    gc.collect()
    release_memory()


def gradient(logits: Tensor) -> Tensor:
    """Of a loss over logits [R, 64]: 256 bytes a row in pooled memory, from 4096 rows on."""
    z = logits.detach().requires_grad_()
    loss = two_hot_cross_entropy(z, torch.zeros(()), BINS)
    return torch.autograd.grad(loss, z)[0]


def bytes_of(count: int, value: float = 0.0) -> Tensor:
    return empty_from_pool((count // 4,), torch.empty(0)).fill_(value)


def test_memory_goes_back_when_its_tensor_goes() -> None:
    x = bytes_of(3 * MEGABYTE)
    assert _native.pool_cached_bytes() == 0
    address = x.data_ptr()
    del x
    assert _native.pool_cached_bytes() == 2 * HUGE_PAGE  # 3 megabytes in whole pages
    y = bytes_of(3 * MEGABYTE)
    assert y.data_ptr() == address
    assert _native.pool_cached_bytes() == 0


def test_gradients_are_pooled() -> None:
    logits = normal(20_000, 64)
    addresses = set()
    for _ in range(5):
        found = gradient(logits)
        addresses.add(found.data_ptr())
        del found
    assert len(addresses) == 1
    assert _native.pool_cached_bytes() >= logits.nbytes
    with torch.no_grad():
        two_hot_cross_entropy(logits, torch.zeros(()), BINS)
    assert _native.pool_cached_bytes() >= logits.nbytes


def test_small_tensors_are_left_to_torch() -> None:
    x = bytes_of(MEGABYTE - 4)
    del x
    assert _native.pool_cached_bytes() == 0
    x = bytes_of(MEGABYTE)
    del x
    assert _native.pool_cached_bytes() == HUGE_PAGE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_pooled_tensor_is_a_tensor_like_any_other(dtype: torch.dtype) -> None:
    like = torch.empty(0, dtype=dtype)
    x = empty_from_pool((1031, 1025), like)
    assert (x.shape, x.dtype, x.device.type) == ((1031, 1025), dtype, "cpu")
    assert x.is_contiguous()
    assert not x.requires_grad
    assert x.data_ptr() % 64 == 0
    x.fill_(3)
    assert (x * 2).eq(6).all()
    assert x.clone().data_ptr() != x.data_ptr()
    x.requires_grad_()
    (x * x).sum().backward()
    assert x.grad.eq(6).all()
    with pytest.raises(ValueError, match="expected at least 1 byte, got 0"):
        _native.empty_from_pool(0)


def test_a_block_serves_what_is_a_little_smaller_and_nothing_larger() -> None:
    large = bytes_of(64 * MEGABYTE)
    address = large.data_ptr()
    del large
    larger = bytes_of(66 * MEGABYTE)
    assert larger.data_ptr() != address
    much_smaller = bytes_of(16 * MEGABYTE)  # it would waste most of the block
    assert much_smaller.data_ptr() != address
    assert _native.pool_cached_bytes() == 64 * MEGABYTE
    smaller = bytes_of(60 * MEGABYTE)
    assert smaller.data_ptr() == address
    assert _native.pool_cached_bytes() == 0


def test_memory_is_kept_while_anything_uses_it() -> None:
    first = gradient(normal(20_000, 64))
    expected = first.clone()
    row, column, flat = first[17], first[:, 3], first.view(-1)
    array = first.numpy()[100:200]
    shared = torch.from_numpy(first.numpy())[::2]
    del first
    for seed in range(4):
        gradient(normal(20_000, 64, seed=seed + 1)).fill_(float("nan"))
    assert torch.equal(row, expected[17])
    assert torch.equal(column, expected[:, 3])
    assert torch.equal(flat, expected.view(-1))
    assert torch.equal(torch.from_numpy(array), expected[100:200])
    assert torch.equal(shared, expected[::2])
    kept = _native.pool_cached_bytes()
    del row, column, flat, array
    assert _native.pool_cached_bytes() == kept
    del shared
    assert _native.pool_cached_bytes() > kept


def test_gradients_keep_their_memory_while_losses_come_and_go() -> None:
    logits = [normal(8192 + 64 * i, 64, seed=i) for i in range(6)]
    held, expected = [], []
    for step in range(24):
        found = gradient(logits[step % 6])
        if step % 3 == 0:
            held.append(found)
            expected.append(found.clone())
        else:
            found.fill_(float("nan"))
        if len(held) == 4:
            del held[1], expected[1]
        del found
        assert all(torch.equal(a, b) for a, b in zip(held, expected, strict=True))
    assert len({x.data_ptr() for x in held}) == len(held)


def test_what_a_graph_saved_is_not_pooled() -> None:
    z = normal(20_000, 64).requires_grad_()
    loss = two_hot_cross_entropy(z, torch.zeros(()), BINS)
    for seed in range(3):
        gradient(normal(20_000, 64, seed=seed + 1)).fill_(float("nan"))
    loss.backward()
    assert torch.equal(z.grad, gradient(z))


def test_releasing_gives_back_what_nobody_uses() -> None:
    x, y = bytes_of(4 * MEGABYTE, 1.0), bytes_of(8 * MEGABYTE)
    del y
    assert release_memory() == 8 * MEGABYTE
    assert _native.pool_cached_bytes() == 0
    assert release_memory() == 0
    assert x.eq(1).all()
    del x
    assert release_memory() == 4 * MEGABYTE


def test_memory_may_be_freed_by_another_thread() -> None:
    held = [bytes_of(4 * MEGABYTE, float(i)) for i in range(8)]
    threads = [threading.Thread(target=lambda: [held.pop() for _ in range(2)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _native.pool_cached_bytes() == 32 * MEGABYTE


def test_many_threads_never_share_a_block() -> None:
    mistakes = []

    def work(number: int) -> None:
        for step in range(60):
            size = MEGABYTE * (1 + (step + number) % 5)
            x = bytes_of(size, float(number))
            y = bytes_of(size, float(-number))
            if not (x.eq(number).all() and y.eq(-number).all()):
                mistakes.append((number, step))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mistakes == []


def printed(program: str, **environment: str) -> list[str]:
    """The lines that a program prints in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", "from twohot import _native\n" + program],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout.split()


def test_zero_megabytes_switch_the_pool_off() -> None:
    program = """
for _ in range(2):
    held = _native.empty_from_pool(4 << 20)
    print(_native.pool_cached_bytes())
    del held
    print(_native.pool_cached_bytes())
"""
    assert printed(program, TWOHOT_POOL_MB="0") == ["0"] * 4


def test_the_pool_keeps_no_more_than_it_was_told() -> None:
    program = """
held = [_native.empty_from_pool(4 << 20) for _ in range(5)]
while held:
    held.pop()
    print(_native.pool_cached_bytes() >> 20)
_native.release_pool()
large = _native.empty_from_pool(20 << 20)
del large
print(_native.pool_cached_bytes() >> 20)
"""
    assert printed(program, TWOHOT_POOL_MB="12") == ["4", "8", "12", "12", "12", "0"]


def test_the_limit_under_its_old_name_counts_with_a_warning() -> None:
    program = """
import warnings
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always", DeprecationWarning)
    import twohot.kernels.memory
held = _native.empty_from_pool(4 << 20)
del held
print(_native.pool_cached_bytes(), sum("TWOHOT_POOL_MB" in str(warning.message) for warning in found))
"""
    assert printed(program, TWOHOT_RECYCLED_MB="0") == ["0", "1"]
    assert printed(program, TWOHOT_RECYCLED_MB="0", TWOHOT_POOL_MB="8") == ["4194304", "1"]


def test_arrays_may_outlive_the_interpreter() -> None:
    program = """
import builtins, torch
from twohot.losses import two_hot_cross_entropy
held = _native.empty_from_pool(4 << 20)
builtins.kept = two_hot_cross_entropy, torch.from_numpy(held), _native.empty_from_pool(4 << 20)
print("done")
"""
    assert printed(program) == ["done"]
