#include "flow_solver.h"

namespace janus {

FlowSteps make_steps(FlowSolver solver, const Schedule &schedule) {
    const double count = schedule.steps, shift = schedule.shift;
    const auto scale = [&](int step) { return shift * count - (shift - 1) * step; };
    FlowSteps steps;
    for (int step = 0; step < schedule.steps; ++step) {
        const double length = shift * count / (scale(step) * scale(step + 1));
        const bool looks_back = solver == FlowSolver::ab2 && step > 0;
        const double back = looks_back ? length * (scale(step - 1) / scale(step + 1)) / 2 : 0;
        steps.times.push_back(static_cast<float>(1000.0 * step / scale(step)));
        steps.dt.push_back(static_cast<float>(length + back));
        steps.back.push_back(static_cast<float>(back));
    }
    return steps;
}

void finish_step(Tensor &latents, float back, const Tensor &before) {
    if (back == 0) return;
    const size_t numbers = count_numbers(latents.shape());
    for (size_t i = 0; i < numbers; ++i) latents.as<float>()[i] -= back * before.as<float>()[i];
}

} // namespace janus
