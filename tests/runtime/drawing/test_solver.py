"""Solvers of a flow against integrals that are known."""

import numpy as np
import pytest

from janus_runtime.bundle.manifest import Schedule
from janus_runtime.drawing.solver import finish_step, make_steps


def integrate(velocity, solver, count, shift, start=1.0):
    """What `velocity(latents, time)` leads to, as the runtime computes it, but in fp64."""
    steps = make_steps(solver, Schedule(count, shift))
    latents, before = np.float64(start), None
    for time, dt, back in zip(*(np.float64(each) for each in (steps.times, steps.dt, steps.back)), strict=True):
        now = velocity(latents, time / 1000)
        latents = finish_step(latents + dt * now, back, before)
        before = now
    return latents


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30, 49, 1000])
def test_eulers_even_steps_are_the_published_ones_to_the_last_bit(count):
    steps = make_steps("euler", Schedule(count, 1.0))
    assert len(steps) == count and all(each.dtype == np.float32 for each in (steps.times, steps.dt, steps.back))
    assert steps.times.tolist() == (1000 * np.arange(count) / count).astype(np.float32).tolist()
    assert steps.dt.tolist() == [np.float32(1 / count)] * count and not steps.back.any()


def test_steps_by_hand():
    """Four of shift 2: d is 8, 7, 6, 5, 4."""
    steps = make_steps("ab2", Schedule(4, 2.0))
    lengths = np.array([8 / 56, 8 / 42, 8 / 30, 8 / 20])
    back = np.array([0, lengths[1] * (8 / 6) / 2, lengths[2] * (7 / 5) / 2, lengths[3] * (6 / 4) / 2])
    assert np.allclose(steps.times, [0, 1000 / 7, 2000 / 6, 3000 / 5], rtol=1e-7)
    assert np.allclose(steps.back, back, rtol=1e-7) and np.allclose(steps.dt, lengths + back, rtol=1e-7)


@pytest.mark.parametrize("shift", [1.0, 1.5, 2.0, 3.0, 100.0])
@pytest.mark.parametrize("solver", ["euler", "ab2"])
@pytest.mark.parametrize("count", [1, 2, 12, 30])
def test_steps_go_from_the_noise_to_the_picture(solver, count, shift):
    steps = make_steps(solver, Schedule(count, shift))
    ends = np.append(np.float64(steps.times), 1000)
    even = np.arange(count + 1) / count
    assert np.allclose(ends, 1000 * even / (shift - (shift - 1) * even), rtol=1e-6)
    assert np.allclose(np.float64(steps.dt) - steps.back, np.diff(ends) / 1000, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 2.5])
def test_ab2_follows_a_line_through_two_velocities(shift):
    """All but the first step, which has one velocity, are exact where the velocity grows with time."""
    first = make_steps("ab2", Schedule(9, shift)).dt[0]
    missed = np.float64(first) ** 2 / 2
    assert integrate(lambda latents, time: 3 * time, "ab2", 9, shift, start=0) == pytest.approx(3 * (0.5 - missed), abs=1e-6)


@pytest.mark.parametrize("shift", [1.0, 2.0])
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("ab2", 2)])
def test_twice_the_steps_err_as_the_order_says(solver, order, shift):
    few, many = (abs(integrate(lambda latents, time: -2 * latents * time, solver, count, shift) - np.exp(-1)) for count in (40, 80))
    assert few / many == pytest.approx(2**order, rel=0.15)


def test_the_first_step_needs_no_velocity_before_it():
    latents = np.ones((1, 2), np.float32)
    assert finish_step(latents, np.float32(0), None) is latents
    assert finish_step(latents, np.float32(0.5), np.float32([[2, 4]])).tolist() == [[0, -1]]
