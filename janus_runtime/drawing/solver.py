"""How a flow is integrated: at which times its velocity is asked for, and what of the one before a step takes.

Euler's method follows each velocity for a step. Adams and Bashforth's of two steps (`ab2`) follows the line through this velocity and the
one before, which costs nothing more and errs less. Both are one form, of which `flow_step` computes all but the last term:

    latents <- latents + dt * velocity - back * velocity of the step before

Letter: S steps.
"""

from dataclasses import dataclass

import numpy as np

from ..bundle.manifest import Schedule, Solver
from ..sampling.sampler import Floats


@dataclass(frozen=True, eq=False)
class Steps:
    """Of one drawing, each [S] and fp32: times of 0 to 1000 where steps begin, and the two factors. `back` begins with 0."""

    times: Floats
    dt: Floats
    back: Floats

    def __len__(self) -> int:
        return len(self.times)


def make_steps(solver: Solver, schedule: Schedule) -> Steps:
    """In fp64, rounded to fp32. Step k begins at k / d[k] of the way, d[k] = shift * S - (shift - 1) * k: evenly spaced for shift 1, else
    closer together near the noise, where it is decided what a picture shows."""
    count, shift = schedule.steps, schedule.shift
    numbers = np.arange(count + 1)
    scale = shift * count - (shift - 1) * numbers
    # The difference of neighbours, without its rounding.
    lengths = shift * count / (scale[:-1] * scale[1:])
    back = np.zeros(count)
    if solver == "ab2":
        back[1:] = lengths[1:] * (scale[:-2] / scale[2:]) / 2
    times = 1000 * numbers[:-1] / scale[:-1]
    return Steps(times.astype(np.float32), (lengths + back).astype(np.float32), back.astype(np.float32))


def finish_step(next_latents: Floats, back: np.float32, before: Floats | None) -> Floats:
    """What `flow_step` gave, less the last term; `before` is the velocity of the step before, of the same shape."""
    if not back:
        return next_latents
    assert before is not None
    latents: Floats = next_latents - back * before
    return latents
