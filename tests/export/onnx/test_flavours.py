"""The cache flavours of `language_model` are one model: the same hidden states from ragged prompts through every step."""

import numpy as np
import pytest

from janus_runtime.backends.ort_cpu import OrtEngine
from janus_runtime.bundle.bundle import NANO, Bundle
from janus_runtime.bundle.interface import MASKED
from janus_runtime.checks.tolerances import FLAVOURS
from janus_runtime.checks.verify import relative_difference
from janus_runtime.errors import BackendError

LENGTHS = np.array([9, 1, 5], np.int32)
STEPS = 6
ROOM = 20


class Driver:
    """One flavour over a cache of its own, run as its inputs ask for: `run(embeds [R, S, D], counts [R])` -> hidden [R, D]."""

    def __init__(self, bundle, flavour):
        self.engine = OrtEngine(bundle, f"language_model.{flavour}")
        model = bundle.manifest.language_model
        # What was never written must not matter.
        shape = (len(LENGTHS), model.num_heads, ROOM, model.head_size)
        self.cache = {name: np.full(shape, 1e3, np.float32) for name in self.engine.spec.cache.inputs}
        self.lengths = np.zeros(len(LENGTHS), np.int32)

    def run(self, embeds, counts, places=None):
        """`places`: those of the last tokens, unless others are asked for."""
        rows, tokens, _ = embeds.shape
        if places is None:
            places = np.arange(rows, dtype=np.int32) * tokens + counts - 1
        hidden = self.call({"embeds": embeds, "places": places.astype(np.int32)}, tokens, counts)
        self.lengths += counts
        return hidden

    def positions(self, tokens):
        return self.lengths[:, None] + np.arange(tokens, dtype=np.int32)


class GroupQuery(Driver):
    def call(self, inputs, tokens, counts):
        lengths = self.lengths + counts
        inputs |= {"seqlens_k": lengths - 1, "total_sequence_length": np.array(lengths.max(), np.int32)}
        present = {name.replace("past", "present"): tensor for name, tensor in self.cache.items()}
        return self.engine.bind(self.cache, present).run(inputs)["hidden"]


class Slice(Driver):
    def call(self, inputs, tokens, counts):
        held = np.arange(ROOM) < self.lengths[:, None]
        causal = np.tri(tokens, dtype=bool)
        inputs |= {
            "position_ids": self.positions(tokens),
            "past_mask": np.where(held, 0, MASKED).astype(np.float32)[:, None, None],
            "new_mask": np.where(causal, 0, MASKED).astype(np.float32)[None, None],
        }
        before = {name: tensor.copy() for name, tensor in self.cache.items()}
        outputs = self.engine.run({**inputs, **self.cache})
        for name, tensor in self.cache.items():
            assert (tensor == before[name]).all(), f"{name} is only read"
            new = outputs[name.replace("past", "new")]
            for row, (start, count) in enumerate(zip(self.lengths, counts, strict=True)):
                tensor[row, :, start : start + count] = new[row, :, :count]
        return outputs["hidden"]


class InPlace(Driver):
    def call(self, inputs, tokens, counts):
        positions = self.positions(tokens).astype(np.int64)
        inputs |= {
            "position_ids": positions,
            "write_indices": self.lengths.astype(np.int64),
            "attn_mask": (np.arange(ROOM) <= positions[..., None])[:, None],
        }
        present = {name.replace("past", "present"): tensor for name, tensor in self.cache.items()}
        return self.engine.bind(self.cache, present).run(inputs)["hidden"]


DRIVERS = {"gqa": GroupQuery, "slice": Slice, "inplace": InPlace}


@pytest.fixture(scope="module", params=["tiny", "nano"])
def bundle(request, tiny):
    """Random weights and trained ones."""
    return Bundle.open(tiny if request.param == "tiny" else NANO)


@pytest.fixture(scope="module")
def embeds(bundle):
    """A ragged prompt [R, T, D] and the steps after it [steps, R, 1, D]."""
    rng = np.random.default_rng(0)
    width = bundle.manifest.language_model.hidden_size
    return rng.standard_normal((3, 9, width), np.float32), rng.standard_normal((STEPS, 3, 1, width), np.float32)


def run(driver, embeds):
    prompt, steps = embeds
    ones = np.ones(len(LENGTHS), np.int32)
    return np.stack([driver.run(prompt, LENGTHS), *(driver.run(step, ones) for step in steps)])


@pytest.mark.parametrize("flavour", ["slice", "inplace"])
def test_flavours_agree(bundle, embeds, flavour):
    got, expected = run(DRIVERS[flavour](bundle, flavour), embeds), run(GroupQuery(bundle, "gqa"), embeds)
    for step in range(1 + STEPS):
        for row in range(len(LENGTHS)):
            difference = relative_difference(got[step, row], expected[step, row])
            assert difference <= FLAVOURS, f"{flavour}, step {step}, row {row}: {difference:.1e}"


@pytest.mark.parametrize("flavour", ["slice", "inplace"])
def test_several_places_of_each_row(bundle, embeds, flavour):
    """Three new tokens over filled caches of different lengths in one call, of two rows all three asked for: six outputs."""
    prompt, steps = embeds
    one, whole = (DRIVERS[flavour](bundle, flavour) for _ in range(2))
    for driver in (one, whole):
        driver.run(prompt, LENGTHS)
    expected = np.stack([one.run(step, np.ones(3, np.int32)) for step in steps[:3]], axis=1)  # [R, 3, D]
    places = np.array([0, 1, 2, 6, 7, 8], np.int32)
    got = whole.run(np.concatenate(steps[:3], axis=1), np.full(3, 3, np.int32), places)
    assert got.shape == (6, expected.shape[-1])
    assert relative_difference(got.reshape(2, 3, -1), expected[[0, 2]]) <= FLAVOURS
    # The cache is left as by the steps.
    assert relative_difference(*(driver.run(steps[3], np.ones(3, np.int32)) for driver in (whole, one))) <= FLAVOURS


def test_what_a_flavour_cannot_do_is_a_field(bundle):
    """ONNX Runtime's operator refuses several tokens of several rows over filled caches."""
    caches = {graph.flavour: graph.cache for graph in bundle.manifest.graphs.values() if graph.kind == "language_model"}
    assert {flavour: cache.ragged_append for flavour, cache in caches.items()} == {"gqa": False, "slice": True, "inplace": True}
    driver = GroupQuery(bundle, "gqa")
    prompt, steps = np.zeros((3, 4, bundle.manifest.language_model.hidden_size), np.float32), np.ones(3, np.int32)
    driver.run(prompt, np.full(3, 4, np.int32))
    with pytest.raises(BackendError, match="batch_size must be 1 when sequence_length > 1"):
        driver.run(prompt, 4 * steps)


@pytest.mark.parametrize("flavour", ["gqa", "inplace"])
def test_the_cache_is_written_in_place(bundle, embeds, flavour):
    """After the prompt each row holds its own keys at its own places, in the array that was handed in."""
    driver, reference = DRIVERS[flavour](bundle, flavour), Slice(bundle, "slice")
    run(driver, embeds)
    run(reference, embeds)
    for name, tensor in driver.cache.items():
        for row, length in enumerate(LENGTHS + STEPS):
            assert relative_difference(tensor[row, :, :length], reference.cache[name][row, :, :length]) <= FLAVOURS, name


@pytest.mark.parametrize("flavour", list(DRIVERS))
def test_what_lies_in_a_masked_slot_changes_nothing(bundle, embeds, flavour):
    first, second = (DRIVERS[flavour](bundle, flavour) for _ in range(2))
    for tensor in second.cache.values():
        tensor[...] = -3e3
    assert np.array_equal(run(first, embeds), run(second, embeds))


@pytest.mark.parametrize("flavour", ["slice", "inplace"])
def test_an_open_slot_changes_much(bundle, embeds, flavour):
    """The test above could pass on a graph that looks at no cache at all."""
    prompt, steps = embeds
    drivers = [DRIVERS[flavour](bundle, flavour) for _ in range(2)]
    for driver in drivers:
        driver.run(prompt, LENGTHS)
    drivers[1].cache["past_value_0"][:, :, 0] += 1
    one, other = (driver.run(steps[0], np.ones(3, np.int32)) for driver in drivers)
    assert relative_difference(one, other) > 1e-2
