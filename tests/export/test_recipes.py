import ml_dtypes
import numpy as np
import pytest

from janus_export.checkpoint.checkpoint import Tensor
from janus_export.errors import CheckpointError
from janus_export.recipes import FromCheckpoint, RopeTable
from janus_export.weights import WeightPlan


@pytest.fixture
def stored(tmp_path):
    """`stored(name=array, …)` -> tensors in a file."""

    def make(**arrays):
        path, offset, tensors = tmp_path / "raw", 0, {}
        with path.open("wb") as file:
            for name, array in arrays.items():
                file.write(array.tobytes())
                tensors[name] = Tensor(path, offset, array.dtype, array.shape)
                offset += array.nbytes
        return tensors

    return make


def test_merged_matrices_lie_side_by_side_transposed(stored):
    q, k = (np.arange(6, dtype=np.float32).reshape(2, 3) + 10 * i for i in range(2))
    recipe = FromCheckpoint((("q", (2, 3)), ("k", (2, 3))), transposed=True)
    assert recipe.shape == (3, 4)
    assert np.array_equal(recipe.make(stored(q=q, k=k), np.dtype(np.float32)), np.concatenate([q, k]).T)


def test_conversion_rounds_once_from_what_is_stored(stored):
    values = np.array([1.0, 1 / 3, -2.5e-7, 60000], ml_dtypes.bfloat16)
    made = FromCheckpoint((("v", (4,)),)).make(stored(v=values), np.dtype(np.float16))
    assert np.array_equal(made, values.astype(np.float32).astype(np.float16))


def test_a_value_beyond_fp16_is_refused_with_the_way_out(stored):
    tensors = stored(v=np.array([1.0, 70000.0], np.float32))
    with pytest.raises(CheckpointError, match="v holds 70000, beyond float16's 65504; export with --precision fp32"):
        FromCheckpoint((("v", (2,)),)).make(tensors, np.dtype(np.float16))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_damaged_values_are_refused(stored, value):
    with pytest.raises(CheckpointError, match="v holds NaN or Inf: the checkpoint is damaged"):
        FromCheckpoint((("v", (2,)),)).make(stored(v=np.array([1.0, value], np.float32)), np.dtype(np.float32))


def test_rope_table_is_the_published_formula():
    table = RopeTable("cos", 700, 128, 10000.0)
    exact = np.cos(np.arange(700)[:, None] * 10000.0 ** (-np.arange(0, 128, 2) / 128))
    # Angles reach 699, where one fp32 rounding is 3e-5.
    assert np.abs(table.make({}, np.dtype(np.float32)) - exact).max() < 1e-4


def test_a_tensor_is_stored_once_and_aligned(stored, tmp_path):
    values = np.arange(5, dtype=np.float32)
    recipe = FromCheckpoint((("v", (5,)),))
    plan = WeightPlan()
    first = plan.add(recipe, "float32")
    half = plan.add(recipe, "float16")
    assert plan.add(FromCheckpoint((("v", (5,)),)), "float32") == first
    assert half.offset % 64 == 0 and plan.total_bytes == half.offset + 10
    written = []
    file = plan.write(tmp_path / "weights", stored(v=values), written.append)
    data = (tmp_path / "weights").read_bytes()
    assert file.bytes == len(data) == plan.total_bytes and written == [20, plan.total_bytes]
    assert np.array_equal(np.frombuffer(data, np.float32, 5), values)
    assert np.array_equal(np.frombuffer(data, np.float16, 5, half.offset), values.astype(np.float16))


def test_a_file_that_shrank_after_it_was_opened(stored, tmp_path):
    tensors = stored(v=np.zeros(8, np.float32))
    (tmp_path / "raw").write_bytes(b"1234")
    with pytest.raises(CheckpointError, match="ends before a tensor does: truncated"):
        tensors["v"].read()
