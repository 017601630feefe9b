"""kernels.cu without a GPU: it compiles for every one, and on a CPU its own source gives what NumPy gives."""

import re

import numpy as np
import pytest

from janus_runtime.backends.cuda_kernels import PARAMETERS, SOURCE
from janus_runtime.errors import BackendError
from janus_runtime.sampling.guidance import Pairs
from janus_runtime.sampling.sampler import keep_top_k
from testing.cuda_on_cpu import CpuGpu
from testing.numpy_device import NumpyDevice

PLAIN = [0.0, 0.0, 1.0]  # drawn, all ids


@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"])
def test_it_compiles_for_every_gpu(arch):
    core = pytest.importorskip("cuda.core", reason="cuda.core is not installed: pip install '.[gpu]'")
    try:
        program = core.Program(SOURCE.read_text(), "c++", core.ProgramOptions(name=SOURCE.name, arch=arch))
    except RuntimeError as error:  # not the compiler's own error
        pytest.skip(f"NVRTC is not installed: {error}")
    code = program.compile("cubin").code
    # A kernel's code lies in a section of its name.
    missing = [name for name in PARAMETERS if f".text.{name}\0".encode() not in code]
    assert code.startswith(b"\x7fELF") and not missing


def test_launches_pass_what_the_source_takes():
    found = {}
    for name, parameters in re.findall(r"__global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(([^)]*)\)", SOURCE.read_text()):
        types = (re.sub(r"\bconst ", "", " ".join(each.split())) for each in parameters.split(","))
        found[name] = tuple(re.fullmatch(r"(\w+\*?) \w+", each).group(1) for each in types)
    assert found == PARAMETERS
    assert SOURCE.read_text().count("__global__") == len(PARAMETERS)


@pytest.fixture
def run(library):
    """run(kernel, *arrays and numbers) -> all arrays afterwards, compared with NumPy's unless `compare` is False."""

    def run(kernel, *values, compare=True):
        gpu, reference = CpuGpu(library), NumpyDevice()
        before = [np.array(value) if isinstance(value, np.ndarray | list) else value for value in values]
        expected = [value.copy() if isinstance(value, np.ndarray) else value for value in before]
        if compare:
            getattr(reference.kernels, kernel)(*expected)
            reference.download(np.zeros(1))
        results = []
        for _ in range(2):  # threads forwards, then backwards
            given = [gpu.array(value) if isinstance(value, np.ndarray) else value for value in before]
            getattr(gpu.kernels, kernel)(*given)
            results.append([gpu.read(value) for value in given if not isinstance(value, int)])
        for forwards, backwards in zip(*results, strict=True):
            np.testing.assert_array_equal(forwards, backwards, err_msg=f"{kernel} depends on the order of threads")
        if compare:
            arrays = [value for value in expected if isinstance(value, np.ndarray)]
            for index, (got, wanted) in enumerate(zip(results[0], arrays, strict=True)):
                np.testing.assert_array_equal(got, wanted, err_msg=f"array {index} of {kernel}")
        return results[0]

    return run


def ulps(a, b):
    """How many fp32 numbers lie between: both in the order of integers."""

    def places(values):
        bits = values.view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)

    return np.abs(places(a) - places(b))


@pytest.mark.parametrize("num_ids", [1, 3, 4, 1023, 1025, 4099, 16384])
def test_gumbel(run, num_ids):
    random = np.random.default_rng(num_ids)
    seeds = np.array([0, 2**64 - 1, 7, *random.integers(0, 2**64, 2, dtype=np.uint64)], np.uint64)
    noise, step = np.full((len(seeds), num_ids), np.nan, np.float32), np.array([575, 0, 3, 4, 5], np.int32)
    sampling = np.tile(np.array(PLAIN), (len(seeds), 1))
    got, *_ = run("gumbel", noise, seeds, step, sampling, compare=False)
    device = NumpyDevice()
    device.kernels.gumbel(noise, seeds, step, sampling)
    assert ulps(got, device.download(noise)).max() <= 1


def test_gumbel_is_zero_where_greedy(run):
    """Rows of one batch need not be drawn alike."""
    noise, sampling = np.full((3, 37), np.nan, np.float32), np.array([[1.0, 50.0, 0.5], PLAIN, [1.0, 0.0, 1.0]])
    got, *_ = run("gumbel", noise, np.array([1, 2, 3], np.uint64), np.array([3, 3, 3], np.int32), sampling, compare=False)
    assert not got[[0, 2]].any() and got[1].all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38])
@pytest.mark.parametrize("row", [0, 2])
@pytest.mark.parametrize("place", [0, 1500, 5000])
def test_check(run, value, row, place):
    logits = np.zeros((3, 5001), np.float32)
    logits[row, place] = value
    *_, bad = run("check", logits, np.array([1, 1, 0], np.int32), np.array([41, 7, 8], np.int32), np.zeros(3, np.int32))
    assert bad.tolist() == ([42, 0, 0] if row == 0 and not np.isfinite(value) else [0, 0, 0])


def test_check_of_pairs(run):
    """Both rows of a picture go by its step; a row that is well says nothing of its neighbour."""
    logits = np.zeros((4, 300), np.float32)
    logits[1, 299] = logits[3, 0] = np.nan
    *_, bad = run("check", logits, np.ones(4, np.int32), np.array([4, 9], np.int32), np.zeros(4, np.int32))
    assert bad.tolist() == [0, 5, 0, 10]


@pytest.mark.parametrize("value", [0, np.nan])
def test_check_leaves_what_was_bad(run, value):
    """The first bad step is the one that counts."""
    logits = np.full((1, 8), value, np.float32)
    *_, bad = run("check", logits, np.ones(1, np.int32), np.array([9], np.int32), np.array([3], np.int32))
    assert bad[0] == 3


def keep(run, logits, rows, sampling, cfg_weight=5.0, temperature=1.0, **options):
    noise = np.random.default_rng(0).standard_normal((rows, logits.shape[1])).astype(np.float32)
    numbers = np.full(rows, cfg_weight, np.float32), np.full(rows, temperature, np.float32), np.tile(np.array(sampling, float), (rows, 1))
    kept, *_ = run("keep", noise, logits, *numbers, **options)
    return ~np.isneginf(kept)


def doubtful(scores, top_p):
    """Whether an id's place at `top_p` hangs on how probabilities are summed."""
    ranked = -np.sort(-scores.astype(np.float64), axis=-1)
    weights = np.exp(ranked - ranked[:, :1])
    weights /= weights.sum(-1, keepdims=True)
    return np.abs(np.cumsum(weights, -1) - weights - top_p).min() < 1e-9


@pytest.mark.parametrize("case", range(40))
def test_keep_on_random_scores(run, case):
    random = np.random.default_rng(case)
    num_ids, rows = int(random.integers(1, 3000)), int(random.integers(1, 3))
    guided = case % 2 == 0
    logits = (random.standard_normal((rows * (1 + guided), num_ids)) * random.choice([0.01, 2, 30])).astype(np.float32)
    if case % 3 == 0:
        logits = np.round(logits)  # many ties, and -0.0
    top_k = int(random.choice([0, 1, 2, 50, num_ids - 1, num_ids, num_ids + 1, 10**6]))
    # No round numbers: of many equals, where those end would hang on the last bit of a sum.
    top_p = float(random.choice([1.0, 1e-6, 0.99897, *random.random(3)]))
    cfg_weight, temperature = float(random.choice([0.0, 1.0, 5.0])), float(random.choice([1.0, 0.7, 100.0]))
    scores = (Pairs(cfg_weight).mix(logits) if guided else logits) / np.float32(temperature)
    doubt = top_p < 1 and doubtful(keep_top_k(scores, top_k) if top_k else scores, top_p)
    assert not doubt, "this case hangs on how probabilities are summed: choose another seed"
    kept = keep(run, logits, rows, [0, top_k, top_p], cfg_weight, temperature)
    assert kept.any(-1).all()


@pytest.mark.parametrize("top_p, kept", [(0.5, [0, 1]), (0.51, [0, 1, 2]), (0.25, [0]), (1e-300, [0]), (1 - 2**-53, [0, 1, 2, 3])])
def test_top_p_takes_the_lower_of_equal_ids(run, top_p, kept):
    scores = np.full((1, 300), -1e4, np.float32)
    scores[0, [0, 1, 2, 3]] = 0.0, -0.0, 0.0, -0.0
    assert np.flatnonzero(keep(run, scores, 1, [0, 0, top_p])).tolist() == kept


def test_top_p_among_very_many_equals(run):
    kept = keep(run, np.zeros((1, 2**13), np.float32), 1, [0, 0, 0.75])
    assert kept[0, :6144].all() and not kept[0, 6144:].any()


def test_top_k_keeps_ties_with_the_kth(run):
    scores = np.array([[3, 1, 2, 2, 0, 2, -1, -0.0]], np.float32)
    assert np.flatnonzero(keep(run, scores, 1, [0, 2, 1.0])).tolist() == [0, 2, 3, 5]
    assert np.flatnonzero(keep(run, scores, 1, [0, 5, 1.0])).tolist() == [0, 1, 2, 3, 5]
    assert np.flatnonzero(keep(run, scores, 1, [0, 6, 1.0])).tolist() == [0, 1, 2, 3, 4, 5, 7]  # 0 and -0 are equal


def test_top_p_is_of_what_top_k_left(run):
    scores = np.log(np.array([[4, 3, 2, 1]], np.float32))
    assert keep(run, scores, 1, [0, 2, 0.56]).sum() == 1  # 4/7 alone reach it
    assert keep(run, scores, 1, [0, 0, 0.56]).sum() == 2  # 4/10 alone do not


@pytest.mark.parametrize("sampling", [[1, 5, 0.5], [0, 0, 1], [0, 64, 1], [0, 65, 1]])
def test_keep_leaves_noise_alone_where_nothing_is_ruled_out(run, sampling):
    assert keep(run, np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32), 2, sampling).all()


def test_keep_by_each_row_s_own_settings(run):
    logits, noise = np.random.default_rng(4).standard_normal((3, 500)).astype(np.float32), np.zeros((3, 500), np.float32)
    sampling = np.array([[0, 3, 1], PLAIN, [0, 0, 0.5]])
    kept, *_ = run("keep", noise, logits, np.zeros(3, np.float32), np.array([1, 1, 0.1], np.float32), sampling)
    count = (~np.isneginf(kept)).sum(-1)
    assert count[0] == 3 and count[1] == 500 and 0 < count[2] < 50


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_keep_ends_on_scores_of_nan(run, bad):
    logits = np.random.default_rng(2).standard_normal((2, 100)).astype(np.float32)
    logits[0] = bad
    kept = keep(run, logits, 2, [0, 10, 0.9], compare=False)
    assert 1 <= kept[1].sum() <= 10


def test_keep_over_a_whole_vocabulary(run):
    logits = (np.random.default_rng(3).standard_normal((2, 16384)) * 3).astype(np.float32)
    assert 0 < keep(run, logits, 1, [0, 1000, 0.9]).sum() < 1000


def draw(run, logits, noise, table=None, cfg_weight=5.0, temperature=1.0, **options):
    """-> ids [n] and the table's row of each, which both rows of a picture have."""
    count, num_ids = noise.shape
    if table is None:
        table = np.arange(8 * num_ids).reshape(num_ids, 8).astype(np.float32)
    numbers = np.full(count, cfg_weight, np.float32), np.full(count, temperature, np.float32)
    drawn = np.full(count, 77, np.int32), np.full((2 * count, 1, table.shape[1]), np.nan, table.dtype)
    *_, ids, embeds = run("draw", logits, noise, *numbers, table, *drawn, **options)
    np.testing.assert_array_equal(embeds[:, 0], table[np.repeat(ids, 2)])
    return ids


@pytest.mark.parametrize("num_ids", [1, 31, 33, 1023, 1025, 4099, 16384])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 100.0])
def test_draw(run, num_ids, temperature):
    random = np.random.default_rng(num_ids)
    logits = (3 * random.standard_normal((6, num_ids))).astype(np.float32)
    noise = random.gumbel(size=(3, num_ids)).astype(np.float32)
    draw(run, logits, noise, cfg_weight=random.choice([0.0, 1.0, 5.0]), temperature=temperature)
    draw(run, np.round(logits), np.round(noise), temperature=temperature)  # many ties, and -0.0


@pytest.mark.parametrize("dtype, width", [("float16", 8), ("float16", 192), ("float32", 4), ("float32", 4100)])
def test_draw_copies_a_row_of_any_width(run, dtype, width):
    random = np.random.default_rng(width)
    table = random.standard_normal((50, width)).astype(dtype)
    draw(run, random.standard_normal((4, 50)).astype(np.float32), np.zeros((2, 50), np.float32), table)


def test_draw_takes_the_lowest_of_equal_ids(run):
    logits, noise = np.full((2, 5000), -1.0, np.float32), np.zeros((1, 5000), np.float32)
    logits[:, [4000, 2001, 977, 3001]] = 0.0, -0.0, -0.0, 0.0
    noise[0, [977, 2001]] = -0.0, 0.0
    assert draw(run, logits, noise).tolist() == [977]
    noise[0, 977] = -np.inf
    assert draw(run, logits, noise).tolist() == [2001]


def test_draw_of_what_is_ruled_out(run):
    noise = np.full((2, 300), -np.inf, np.float32)
    noise[1, 299] = -3
    assert draw(run, np.ones((4, 300), np.float32), noise).tolist() == [0, 299]


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_draw_of_nan_is_an_id_that_there_is(run, bad):
    """The host is told by `check`; here nothing may be read from beyond the table."""
    logits = np.full((4, 100), bad, np.float32)
    logits[2:] = np.random.default_rng(2).standard_normal((2, 100))
    ids = draw(run, logits, np.zeros((2, 100), np.float32), compare=False)
    assert 0 <= ids[0] < 100 and ids[1] == Pairs(5.0).mix(logits[2:]).argmax()


@pytest.mark.parametrize("rows", [1, 300])
def test_record(run, rows):
    """Guided, there are two rows of logits for each picture."""
    ids = np.arange(rows, dtype=np.int32) + 5
    steps = np.arange(rows, dtype=np.int32) % 3
    bad = np.arange(2 * rows, dtype=np.int32)
    _, log, step, _, host_bad = run("record", ids, np.zeros((3, rows), np.int32), steps, bad, np.full(2 * rows, 77, np.int32))
    assert host_bad.tolist() == bad.tolist()
    assert log[steps, np.arange(rows)].tolist() == ids.tolist() and np.count_nonzero(log) == rows and (step == steps + 1).all()


def test_record_after_the_last_row_writes_none(run):
    bad = np.zeros(2, np.int32)
    _, log, step, *_ = run("record", np.ones(2, np.int32), np.zeros((3, 2), np.int32), np.array([3, 2], np.int32), bad, bad + 1)
    assert log.tolist() == [[0, 0], [0, 0], [0, 1]] and step.tolist() == [4, 3]


@pytest.mark.parametrize("dtype, size", [("float16", 8), ("float16", 24), ("float32", 12), ("int8", 16)])
@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("more", [0, 2])
def test_write_cache(run, dtype, size, tokens, more):
    """`more`: rows of the new tokens that only keep addresses aligned."""
    random = np.random.default_rng(size + tokens)
    cache = random.integers(-100, 100, (3, 5, 2, 7, size)).astype(dtype)
    new = random.integers(-100, 100, (3, 4 + more, 2, tokens, size)).astype(dtype)
    # From the middle, over the end, at the end, and a row that takes nothing.
    run("write_cache", cache, new, np.array([2, 6, 7, 0], np.int32), np.array([tokens, tokens, 1, 0], np.int32), 1)


def test_write_cache_of_many_blocks(run):
    random = np.random.default_rng(4)
    cache, new = (random.standard_normal((2, 2, 16, length, 128)).astype(np.float16) for length in (9, 5))
    run("write_cache", cache, new, np.array([3, 8], np.int32), np.array([5, 2], np.int32), 0)


@pytest.mark.parametrize("dtype, size", [("float16", 8), ("float32", 12), ("int8", 16)])
def test_clear_cache(run, dtype, size):
    cache = np.random.default_rng(size).integers(1, 100, (3, 4, 2, 300, size)).astype(dtype)
    after, _ = run("clear_cache", cache, np.array([0, 299, 300, 7], np.int32))
    assert [np.count_nonzero(after[0, row, 1, :, 0]) for row in range(4)] == [0, 299, 300, 7]


@pytest.mark.parametrize(
    "count, nbytes, source_stride, target_stride", [(1, 16, 16, 16), (9, 48, 64, 80), (3, 16 * 700, 16 * 701, 16 * 700)]
)
def test_copy_2d(run, count, nbytes, source_stride, target_stride):
    source = np.random.default_rng(5).integers(0, 255, (count - 1) * source_stride + nbytes).astype(np.uint8)
    target = np.zeros((count - 1) * target_stride + nbytes, np.uint8)
    run("copy_2d", source, target, count, nbytes, source_stride, target_stride)


def test_copy_2d_reaches_beyond_a_view_but_not_out_of_memory(library):
    gpu = CpuGpu(library)
    array = gpu.array(np.arange(3 * 4 * 8, dtype=np.int32).reshape(3, 4, 8))
    gpu.kernels.copy_2d(array[0][1], array[0][3], 3, 32, 128, 128)
    assert (gpu.read(array)[:, 3] == gpu.read(array)[:, 1]).all()
    with pytest.raises(BackendError, match="copy_2d got 4 pieces of 32 bytes, 128 apart"):
        gpu.kernels.copy_2d(array[0][1], array[0][3], 4, 32, 128, 128)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_advance_slice(run, dtype):
    positions, active = np.array([[0], [6], [7], [3], [-1]], np.int32), np.array([1, 1, 1, 0, 0], np.int32)
    after, mask, _ = run("advance_slice", positions, np.full((5, 1, 1, 7), -30000, dtype), active)
    assert after[:, 0].tolist() == [1, 7, 8, 3, -1] and (mask == 0).sum() == 2


def test_advance_inplace(run):
    positions, write = np.array([[4], [9], [6], [3]], np.int64), np.array([0, 5, 6, 3], np.int64)
    after, indices, mask, _ = run("advance_inplace", positions, write, np.zeros((4, 1, 1, 7), bool), np.array([1, 1, 1, 0], np.int32))
    assert indices.tolist() == [1, 6, 7, 3] and mask[0, 0, 0, 1] and mask[1, 0, 0, 6] and mask.sum() == 2


def test_advance_gqa(run):
    lengths, _ = run("advance_gqa", np.arange(300, dtype=np.int32), (np.arange(300) % 2).astype(np.int32))
    assert lengths[:4].tolist() == [0, 2, 2, 4]


def test_launches_refuse_what_a_kernel_would_misread(library):
    gpu = CpuGpu(library)
    lengths, active = gpu.array(np.zeros(4, np.int32)), gpu.array(np.ones(4, np.int32))
    with pytest.raises(BackendError, match="advance_gqa got an array of int64, expected int32"):
        gpu.kernels.advance_gqa(gpu.array(np.zeros(4, np.int64)), active)
    with pytest.raises(BackendError, match=r"advance_gqa got seqlens_k of shape \[2\], expected \[4\]"):
        gpu.kernels.advance_gqa(lengths[:2], active)
    cache, new = gpu.array(np.zeros((1, 2, 1, 4, 8), np.float16)), gpu.array(np.zeros((1, 2, 1, 1, 8), np.float16))
    with pytest.raises(BackendError, match="write_cache got 2 of 2 rows of float16 at row 1"):
        gpu.kernels.write_cache(cache, new, lengths[:2], active[:2], 1)
    ids, rows = gpu.array(np.zeros(2, np.int32)), gpu.array(np.zeros((4, 1, 8), np.float16))
    logits, noise, numbers = (gpu.array(np.zeros(shape, np.float32)) for shape in ((4, 9), (2, 9), (2,)))
    for wrong, message in (
        (np.zeros((8, 8), np.float16), r"draw got table of shape \[8, 8\], expected \[9, 8\]"),
        (np.zeros((9, 8), np.float32), "draw got a table of float32, expected float16 as embeds are"),
    ):
        with pytest.raises(BackendError, match=message):
            gpu.kernels.draw(logits, noise, numbers, numbers, gpu.array(wrong), ids, rows)
    odd, odd_new = gpu.array(np.zeros((1, 2, 1, 4, 4), np.float16)), gpu.array(np.zeros((1, 2, 1, 1, 4), np.float16))
    with pytest.raises(BackendError, match="8 bytes, expected a multiple of 16"):
        gpu.kernels.write_cache(odd, odd_new, lengths[:2], active[:2], 0)


def test_the_stand_in_does_nothing_before_somebody_waits():
    device = NumpyDevice()
    lengths, active, values = device.empty((2,), "int32"), device.empty((2,), "int32"), np.array([3, 4], np.int32)
    device.upload(values, lengths)
    device.upload(np.ones(2, np.int32), active)
    values[...] = 0
    event = device.event()
    replay = device.capture(lambda: device.kernels.advance_gqa(lengths, active))
    replay.launch()
    replay.launch()
    assert lengths.tolist() == [77, 77]
    event.wait()
    assert lengths.tolist() == [3, 4]  # what was queued after the event still waits
    assert device.download(lengths).tolist() == [5, 6] and device.launched == {"advance_gqa": 2, "replay": 2}
