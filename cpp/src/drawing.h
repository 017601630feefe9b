// What to draw and how, and the loop over batches. The counterpart of janus_runtime/drawing/.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cancel.h"
#include "engines.h"
#include "pixels.h"
#include "prompt.h"
#include "sampling.h"

namespace janus {

constexpr double IMAGE_WEIGHT = 5; // of a reference picture, by default: Janus-4o's

// Of one request, checked once. JanusFlow has a solver and its schedule, other models a sampler.
struct DrawSettings {
    double cfg_weight = 0;
    Sampler sampler;
    FlowSolver solver = FlowSolver::euler;
    Schedule schedule{};
    std::optional<double> image_weight; // of a reference picture, for models that draw ids

    Guidance guidance() const { return {image_weight ? Guidance::from_image : Guidance::pairs, cfg_weight, image_weight.value_or(0)}; }
};

// As a caller asked: what is not there is the model's. Throws Error (JANUS_VALUE) on settings out of range, or that the model has no use
// for.
struct AskedSettings {
    std::optional<double> cfg_weight, temperature, image_weight;
    uint64_t top_k = 0;
    double top_p = 1;
    std::optional<FlowSolver> solver;
    std::optional<int> steps;
};
DrawSettings make_settings(const Manifest &manifest, const AskedSettings &asked, bool from_image);

struct DrawRequest {
    std::vector<std::string> prompts;
    size_t n = 1;
    uint64_t seed = 0;
    size_t batch_size = 8;
    DrawSettings settings;
    std::optional<std::vector<float>> pixels; // [3, size, size] of a reference picture
};

// One picture of a batch: the prompt's ids, which `prompt` numbers, and its seed.
struct Job {
    size_t number;
    size_t prompt;
    uint64_t seed;
    const Ids *ids;
};

struct DrawnPicture {
    const Job &job;
    const Rgb &rgb;
    const Tensor &drawn; // ids int32 [tokens] or latents float32 [c, s, s]
    double load_ms, encode_ms, prefill_ms, steps_ms, decode_ms;
};

using OnBatchStep = std::function<void()>;

// How one family of models draws.
class Drawer {
public:
    virtual ~Drawer() = default;
    virtual std::vector<std::string> graphs(bool from_image) const = 0;
    virtual int num_steps(const DrawSettings &settings) const = 0;
    // Only prompts of one key may share a batch.
    virtual int batch_key(const Ids &ids) const = 0;
    // What is made of a reference picture, [tokens, D] each.
    virtual std::vector<Tensor> encode_reference(const std::vector<float> &pixels) = 0;
    // Draws a batch -> ids or latents of each job; calls `on_step` after every step. May end in a step when `cancel` is set, with nothing.
    virtual std::vector<Tensor> draw(const std::vector<Job> &jobs, const std::vector<Tensor> &reference, const DrawSettings &settings,
                                     const janus_cancel_token *cancel, const OnBatchStep &on_step) = 0;
};

std::unique_ptr<Drawer> make_drawer(Engines &engines, const Prompter &prompter);

// Draws everything, picture by picture in order. `on_step(step, total)` and `on_picture` return false to stop. Throws Error.
void draw_pictures(Engines &engines, const Prompter &prompter, Drawer &drawer, const DrawRequest &request, const janus_cancel_token *cancel,
                   const std::function<bool(size_t, size_t)> &on_step, const std::function<bool(const DrawnPicture &)> &on_picture);

} // namespace janus
