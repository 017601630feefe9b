"""A device without a GPU: arrays are NumPy's, kernels a few lines each, and work is done only when somebody waits for it.

A loop that takes for done what was only queued reads numbers of before and fails here as it would on a GPU.
"""

from collections import Counter, deque
from threading import RLock

import numpy as np

from janus_runtime.errors import OutOfMemory
from janus_runtime.sampling.guidance import Pairs
from janus_runtime.sampling.noise import gumbel
from janus_runtime.sampling.sampler import keep_top_k, keep_top_p

# As a GPU's memory is, and as TensorRT wants every address.
ALIGNMENT = 256


class NumpyDevice:
    """`device.Device`. `launched` counts kernels and replays that ran, by name; `queue` is for the engines of tests, `allocate` for them to
    replace."""

    name = "NumPy"

    def __init__(self):
        self.lock = RLock()
        self.reclaim = lambda: None
        self.kernels = NumpyKernels(self)
        self.launched = Counter()
        self._waiting = deque()
        self._recording = None

    def queue(self, work):
        """`work()` is done later, after all that was queued before; while capturing it is recorded."""
        (self._waiting if self._recording is None else self._recording).append(work)

    def empty(self, shape, dtype):
        try:
            return self.allocate(shape, dtype)
        except OutOfMemory:
            self.reclaim()
            return self.allocate(shape, dtype)

    def allocate(self, shape, dtype):
        # What nobody wrote should be noticed.
        dtype = np.dtype(dtype)
        array = _aligned(shape, dtype)
        array.fill(np.nan if dtype.kind == "f" else 77)
        return array

    def clear(self, target):
        self.queue(lambda: target.fill(0))

    def pinned(self, shape, dtype):
        array = np.zeros(shape, dtype)
        return array, array

    def upload(self, values, target):
        assert values.shape == target.shape and values.dtype == target.dtype, (values.shape, values.dtype, target.shape, target.dtype)
        staged = values.copy()
        self.queue(lambda: np.copyto(target, staged))

    def download(self, source):
        assert self._recording is None, "download while capturing"
        self._work()
        return source.copy()

    def event(self):
        assert self._recording is None, "event while capturing"
        event = NumpyEvent(self)
        self.queue(event.reach)
        return event

    def capture(self, work):
        assert self._recording is None, "capture while capturing"
        self._recording = recorded = []
        try:
            work()
        finally:
            self._recording = None
        return NumpyReplay(self, recorded)

    def _work(self, until=None):
        # A GPU works while nobody holds the lock; here whoever waits does the work.
        with self.lock, np.errstate(invalid="ignore", over="ignore"):
            while self._waiting and not (until and until.reached):
                self._waiting.popleft()()


def _aligned(shape, dtype):
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].view(dtype).reshape(shape)


class NumpyEvent:
    def __init__(self, device):
        self.reached = False
        self._device = device

    def reach(self):
        self.reached = True

    def wait(self):
        self._device._work(until=self)
        assert self.reached, "work before this event failed"


class NumpyReplay:
    def __init__(self, device, recorded):
        self._device, self._recorded = device, recorded

    def launch(self):
        assert self._device._recording is None, "replay while capturing"
        self._device.queue(lambda: self._device.launched.update(["replay"]))
        for work in self._recorded:
            self._device.queue(work)

    def close(self):
        self._recorded = None


def _kernel(function):
    """Defers a method and counts it when it runs."""

    def queued(self, *arrays):
        def work():
            self._device.launched[function.__name__] += 1
            function(*arrays)

        self._device.queue(work)

    return queued


def _pieces(array, count, nbytes, stride):
    """bytes [count, nbytes] from an array on; they may reach beyond a view, but not out of its memory."""
    memory = array
    while isinstance(memory.base, np.ndarray):
        memory = memory.base
    end = memory.ctypes.data + memory.nbytes
    assert not count or array.ctypes.data + (count - 1) * stride + nbytes <= end, "copy_2d leaves its memory"
    return np.lib.stride_tricks.as_strided(array.reshape(-1).view(np.uint8), (count, nbytes), (stride, 1))


class NumpyKernels:
    """`device.Kernels`; nothing here knows kernels.cu."""

    def __init__(self, device):
        self._device = device

    @_kernel
    def gumbel(noise, seeds, step, sampling):
        for row, seed in enumerate(seeds):
            noise[row] = 0 if sampling[row, 0] else gumbel(int(seed), int(step[row]), noise.shape[1])

    @_kernel
    def check(logits, active, step, bad):
        for row in np.flatnonzero(active):
            if not bad[row] and not np.isfinite(logits[row]).all():
                bad[row] = step[row * len(step) // len(logits)] + 1

    @_kernel
    def keep(noise, logits, cfg_weight, temperature, sampling):
        each = len(logits) // len(noise)
        for row, (greedy, top_k, top_p) in enumerate(sampling):
            own = logits[each * row : each * (row + 1)]
            scaled = (Pairs(cfg_weight[row]).mix(own) if each == 2 else own) / temperature[row]
            if greedy:
                continue
            if top_k:
                scaled = keep_top_k(scaled, int(top_k))
            if top_p < 1:
                scaled = keep_top_p(scaled, float(top_p))
            noise[row, np.isneginf(scaled[0])] = -np.inf

    @_kernel
    def draw(logits, noise, cfg_weight, temperature, table, ids, embeds):
        for picture, weight in enumerate(cfg_weight):
            rows = slice(2 * picture, 2 * picture + 2)
            ids[picture] = (Pairs(weight).mix(logits[rows])[0] / temperature[picture] + noise[picture]).argmax()
            embeds[rows] = table[ids[picture]]

    @_kernel
    def record(ids, log, step, bad, host_bad):
        for row, now in enumerate(step):
            if now < len(log):
                log[now, row] = ids[row]
        step += 1
        host_bad[:] = bad

    @_kernel
    def write_cache(cache, new, starts, counts, slot):
        length = cache.shape[3]
        for row, (start, count) in enumerate(zip(starts, counts, strict=True)):
            end = min(start + count, length)
            if start < end:
                cache[:, slot + row, :, start:end] = new[:, row, :, : end - start]

    @_kernel
    def clear_cache(cache, starts):
        for row, start in enumerate(starts):
            cache[:, row, :, start:] = 0

    @_kernel
    def copy_2d(source, target, count, nbytes, source_stride, target_stride):
        _pieces(target, count, nbytes, target_stride)[...] = _pieces(source, count, nbytes, source_stride)

    @_kernel
    def advance_slice(position_ids, past_mask, active):
        for row in np.flatnonzero(active):
            if position_ids[row, 0] < past_mask.shape[-1]:
                past_mask[row, 0, 0, position_ids[row, 0]] = 0
            position_ids[row, 0] += 1

    @_kernel
    def advance_inplace(position_ids, write_indices, attn_mask, active):
        for row in np.flatnonzero(active):
            position_ids[row, 0] += 1
            write_indices[row] += 1
            if write_indices[row] < attn_mask.shape[-1]:
                attn_mask[row, 0, 0, write_indices[row]] = True

    @_kernel
    def advance_gqa(seqlens_k, active):
        seqlens_k += active
