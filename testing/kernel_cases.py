"""Inputs for each of our kernels, at sizes that a GPU shows something at: (name, kernel, arrays and numbers)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

Case = tuple[str, str, list[Any]]


def cases(large: bool) -> Iterator[Case]:
    """`large`: the vocabularies and the cache of Janus-Pro; else a hundredth, for a checker that takes its time."""
    rng = np.random.default_rng(0)
    image_ids, text_ids, length, tensors, heads, size = (16384, 102400, 704, 48, 16, 128) if large else (1000, 3001, 40, 4, 3, 16)
    table = rng.standard_normal((image_ids, heads * size)).astype(np.float16)
    for pictures in (1, 16):
        yield from _draws(rng, f"{pictures} of {image_ids}", pictures, image_ids)
        numbers = np.full(pictures, 5, np.float32), np.full(pictures, 0.9, np.float32)
        logits, noise = (rng.standard_normal((count, image_ids)).astype(np.float32) for count in (2 * pictures, pictures))
        drawn = np.zeros(pictures, np.int32), np.zeros((2 * pictures, 1, heads * size), np.float16)
        yield f"draw, {pictures} of {image_ids}", "draw", [logits, noise, *numbers, table, *drawn]
    yield from _draws(rng, f"1 of {text_ids}", 1, text_ids)
    for rows in (2, 32):
        step, bad = np.full(rows // 2, 4, np.int32), np.zeros(rows, np.int32)
        logits = rng.standard_normal((rows, image_ids)).astype(np.float32)
        logits[1, 7] = np.nan
        active = np.ones(rows, np.int32)
        yield f"check, {rows} rows", "check", [logits, active, step, bad]
        ids, log = rng.integers(0, image_ids, rows // 2).astype(np.int32), np.zeros((576, rows // 2), np.int32)
        yield f"record, {rows} rows", "record", [ids, log, step * 0, bad, bad + 1]
        lengths = rng.integers(0, length, rows).astype(np.int32)
        yield f"advance_gqa, {rows} rows", "advance_gqa", [lengths, active]
        mask = np.full((rows, 1, 1, length), -30000, np.float16)
        yield f"advance_slice, {rows} rows", "advance_slice", [lengths[:, None].copy(), mask, active]
        seen = np.zeros((rows, 1, 1, length), bool)
        yield (
            f"advance_inplace, {rows} rows",
            "advance_inplace",
            [lengths[:, None].astype(np.int64), lengths.astype(np.int64), seen, active],
        )
    rows = 2
    cache = rng.standard_normal((tensors, rows, heads, length, size)).astype(np.float16)
    new = rng.standard_normal((tensors, rows, heads, 1, size)).astype(np.float16)
    starts, counts = np.array([length - 1, 3], np.int32), np.ones(rows, np.int32)
    yield "write_cache, a step", "write_cache", [cache, new, starts, counts, 0]
    longer = np.zeros((tensors, rows, heads, length + 16, size), np.float16)
    place = size * 2
    strides = [tensors * rows * heads, length * place, length * place, (length + 16) * place]
    yield "copy_2d, a cache that grows", "copy_2d", [cache, longer, *strides]
    yield "clear_cache", "clear_cache", [cache, np.array([5, length - 2], np.int32)]


def _draws(rng: np.random.Generator, name: str, pictures: int, num_ids: int) -> Iterator[Case]:
    noise = np.zeros((pictures, num_ids), np.float32)
    seeds, step = rng.integers(0, 2**63, pictures).astype(np.uint64), np.arange(pictures, dtype=np.int32)
    plain = np.tile([0.0, 0.0, 1.0], (pictures, 1))
    yield f"gumbel, {name}", "gumbel", [noise, seeds, step, plain]
    logits = (3 * rng.standard_normal((2 * pictures, num_ids))).astype(np.float32)
    weight, temperature = np.full(pictures, 5, np.float32), np.full(pictures, 0.9, np.float32)
    for what, sampling in (("all ids", [0.0, 0.0, 1.0]), ("top-k 100", [0.0, 100.0, 1.0]), ("top-p 0.9", [0.0, 0.0, 0.9])):
        yield f"keep, {what}, {name}", "keep", [noise, logits, weight, temperature, np.tile(sampling, (pictures, 1))]
