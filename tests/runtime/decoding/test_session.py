"""One contract, two sessions: the same rows, errors and logits from the host's and from a device's."""

from contextlib import closing

import numpy as np
import pytest

import janus_runtime
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.checks.tolerances import FP32
from janus_runtime.checks.verify import relative_difference
from janus_runtime.decoding.sessions import open_session
from janus_runtime.errors import JanusError, NumericalError
from janus_runtime.janus import janus_over
from testing.sessions import prefill, step
from testing.stand_in import StandIn
from tests.marks import needs_int8_cache, needs_opset_24

KINDS = ["host-fp32", pytest.param("host-int4", marks=needs_int8_cache), "slice", pytest.param("inplace", marks=needs_opset_24), "gqa"]


@pytest.fixture(scope="class", params=KINDS)
def engines(request, bundles):
    if request.param.startswith("host"):
        with janus_runtime.load(bundles("tiny", request.param[5:]), backend="cpu") as janus:
            yield janus._engines
        return
    bundle = Bundle.open(bundles("tiny"))
    lengths = (120,) if request.param == "inplace" else (16, 32, 120)
    with janus_over(bundle, StandIn(request.param, lengths=lengths)) as janus:
        yield janus._engines


@pytest.fixture
def opened(engines):
    """`opened(rows)` -> a session of pictures, closed at the end."""
    made = []

    def get(rows, max_length=60):
        made.append(open_session(engines, "image", rows, max_length))
        return made[-1]

    yield get
    for session in made:
        session.close()


@pytest.fixture
def prompts(engines):
    rng = np.random.default_rng(0)
    return [engines.embed_text(rng.integers(6, 300, length).astype(np.int32)) for length in (9, 4, 20, 6)]


def ids(*values):
    return np.array(values, np.int32)


class TestSession:
    def test_rows_join_leave_are_copied_and_refilled_while_others_go_on(self, engines, opened, prompts):
        """Each row's ids are those of its sequence alone, step for step."""

        def alone(prompt, *fed):
            with closing(open_session(engines, "image", 1, 60)) as session:
                return [prefill(session, [prompt], "image")[0], *(step(session, ids(token))[0] for token in fed)]

        fed = {"a": (3, 4, 5, 6), "b": (7, 8), "c": (9, 10, 11), "d": (1,)}
        expected = {name: alone(prompt, *fed[name]) for name, prompt in zip("abcd", prompts, strict=True)}
        session = opened(4)
        got = {name: [] for name in "abcd"}

        def take(logits, *names):
            for name, found in zip(names, logits, strict=True):
                got[name].append(found)

        take(session.prefill(prompts[:2], [2, 0], "image"), "a", "b")
        take(session.step(ids(7, 3)), "b", "a")
        take(session.prefill([prompts[2]], [3], "image"), "c")
        take(session.step(ids(4, 8, 9), [2, 0, 3]), "a", "b", "c")
        session.truncate(0)
        session.copy(3, 1)
        take(session.step(ids(10, 5), [3, 2]), "c", "a")
        assert session.lengths.tolist() == [0, 21, 12, 22]
        take(session.prefill([prompts[3]], [0], "image"), "d")
        found = session.step(ids(1, 10, 6, 11))
        take([found[0], found[2], found[3]], "d", "a", "c")
        assert same(engines, found[1], expected["c"][2]), "the copy goes the way of its source"
        for name, logits in expected.items():
            for index, (ours, theirs) in enumerate(zip(got[name], logits, strict=True)):
                assert same(engines, ours, theirs), f"row {name}, call {index}"

    def test_one_token_more_is_a_step(self, engines, opened, prompts):
        """`prefill` of a row that holds something goes on where it stopped."""
        whole, parts = opened(1), opened(2)
        expected = prefill(whole, [prompts[2]], "image")
        parts.prefill([prompts[2][:13]], [1], "image")
        assert same(engines, stack(parts.prefill([prompts[2][13:]], [1], "image")), expected)

    def test_a_row_may_be_cut_and_go_on(self, opened, prompts):
        session = opened(1)
        prefill(session, [prompts[2]], "image")
        first = [step(session, ids(token)) for token in (3, 4)]
        session.truncate(0, 20)
        assert np.array_equal(np.stack([step(session, ids(token)) for token in (3, 4)]), np.stack(first))

    def test_nan_is_the_error_of_its_row(self, engines, opened, prompts):
        session = opened(3)
        bad = np.full_like(prompts[1], np.nan)
        good, wrong, other = session.prefill([prompts[0], bad, prompts[3]], [0, 1, 2], "image")
        assert isinstance(wrong, NumericalError) and "NaN or Inf" in str(wrong)
        assert session.lengths.tolist() == [9, 0, 6]
        fresh = opened(3)
        expected = fresh.prefill([prompts[0], prompts[3]], [0, 2], "image")
        assert same(engines, good, expected[0]) and same(engines, other, expected[1])
        assert same(engines, stack(session.step(ids(3, 4))), stack(fresh.step(ids(3, 4))))
        # The row itself can be used again.
        again = stack(session.prefill([prompts[1]], [1], "image"))
        assert same(engines, again, stack(fresh.prefill([prompts[1]], [1], "image")))

    @pytest.mark.parametrize(
        ("use", "message"),
        [
            (lambda session, prompt: session.step(ids(1, 2)), r"got ids of shape \[2\] for 1 rows; expected one id for each"),
            (lambda session, prompt: session.step(ids(1, 2), [0, 1]), "row 1 is free; prefill it before a step"),
            (lambda session, prompt: session.step(ids(1), [3]), "got row 3; expected 0 to 2"),
            (lambda session, prompt: session.step(ids(1, 1), [0, 0]), r"got rows \[0, 0\]; expected each once"),
            (lambda session, prompt: session.prefill([prompt], [1, 2], "image"), "got 1 prompts for 2 rows; expected one for each"),
            (lambda session, prompt: session.prefill([prompt[:0]], [1], "image"), "got a prompt without tokens"),
            (lambda session, prompt: session.prefill([np.tile(prompt, (8, 1))], [1], "image"), "row 1 would hold 72 tokens; .* at most 60"),
            (lambda session, prompt: session.truncate(0, 10), "row 0 holds 9 tokens; expected to keep 0 to as many, got 10"),
            (lambda session, prompt: session.copy(0, 5), "got row 5; expected 0 to 2"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_an_error_that_costs_nothing(self, opened, prompts, use, message):
        session = opened(3)
        session.prefill([prompts[0]], [0], "image")
        with pytest.raises(ValueError, match=message):
            use(session, prompts[0])
        assert session.lengths.tolist() == [9, 0, 0] and session.rows == 3

    def test_a_step_of_no_row_is_an_error(self, opened):
        with pytest.raises(ValueError, match="got no row to step; prefill one first"):
            opened(2).step(ids())

    def test_a_closed_session_says_so(self, opened, prompts):
        session = opened(1)
        session.close()
        session.close()
        for use in (lambda: session.prefill([prompts[0]], [0], "image"), lambda: session.step(ids(1)), lambda: session.truncate(0)):
            with pytest.raises(JanusError, match="this session is closed; open another"):
                use()


def stack(logits):
    return np.stack(logits)


def same(engines, got, expected):
    """Ids are equal; in fp32 the logits too, but for the order of sums."""
    limit = FP32 if engines.manifest.precision == "fp32" else np.inf
    return np.array_equal(got.argmax(-1), expected.argmax(-1)) and relative_difference(got, expected) <= limit
