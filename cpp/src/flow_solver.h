// How a flow is integrated: the counterpart of janus_runtime/drawing/solver.py, where the formula stands.
#pragma once

#include <vector>

#include "manifest.h"
#include "tensor.h"

namespace janus {

// Of one drawing, each [steps]: times of 0 to 1000 where steps begin, and the factors of `latents + dt * velocity - back * velocity
// before`.
struct FlowSteps {
    std::vector<float> times, dt, back;
};

FlowSteps make_steps(FlowSolver solver, const Schedule &schedule);

// Takes the last term from what flow_step gave; `before` is the velocity of the step before, of the same shape, and unused for `back` 0.
void finish_step(Tensor &latents, float back, const Tensor &before);

} // namespace janus
