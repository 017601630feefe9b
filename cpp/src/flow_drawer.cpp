#include "flow_drawer.h"

#include <algorithm>
#include <cstring>

#include "flow_solver.h"
#include "noise.h"

namespace janus {
namespace {

constexpr int PADDING = 64;
// Rules a place out: -30000, which fp16 holds too.
constexpr float MASKED = -30000.0F;
constexpr uint16_t MASKED_HALF = 0xF753;

// A mask in which nothing is seen yet.
Tensor make_mask(DType dtype, const Shape &shape) {
    Tensor mask(dtype, shape);
    const size_t count = count_numbers(shape);
    if (dtype == DType::float16) {
        std::fill_n(mask.as<uint16_t>(), count, MASKED_HALF);
    } else {
        std::fill_n(mask.as<float>(), count, MASKED);
    }
    return mask;
}

Tensor repeat(float number, int64_t count) {
    Tensor tensor(DType::float32, {count});
    std::fill_n(tensor.as<float>(), count, number);
    return tensor;
}

// Row `step` of a table [steps, width], once for each picture.
Tensor rows_of(const Tensor &table, int step, int64_t count) {
    Tensor rows(DType::float32, {count, table.shape()[1]});
    for (int64_t i = 0; i < count; ++i) std::memcpy(rows.at(i), table.at(step), rows.bytes() / static_cast<size_t>(count));
    return rows;
}

} // namespace

// Two rows a picture, conditional and BOS alone.
struct FlowDrawer::Prefix {
    Tensor embeds; // [n, 2, P, D]
    Tensor mask;   // [n, 2, P]
    Tensor first_position;
};

std::vector<std::string> FlowDrawer::graphs(bool from_image) const {
    std::vector<std::string> names{"text_embed", "time_embed", "flow_step", "image_decoder"};
    if (from_image) names.push_back("vision_encoder");
    return names;
}

int FlowDrawer::batch_key(const Ids &ids) const {
    const int length = static_cast<int>(ids.size());
    // The time and the picture come after the prompt.
    const int limit = engines_.manifest().language_model.max_length - engines_.manifest().image_output.num_tokens - 1;
    return std::min((length + PADDING - 1) / PADDING * PADDING, limit);
}

std::vector<Tensor> FlowDrawer::encode_reference(const std::vector<float> &pixels) {
    std::vector<Tensor> reference;
    reference.push_back(engines_.encode_image(pixels));
    return reference;
}

FlowDrawer::Prefix FlowDrawer::make_prefix(const std::vector<Job> &jobs, const std::vector<Tensor> &reference) {
    const DType f = engines_["flow_step"].graph().activations;
    const auto count = static_cast<int64_t>(jobs.size());
    const int64_t places = batch_key(*jobs[0].ids), width = engines_.manifest().language_model.hidden_size;
    Prefix prefix{Tensor(f, {count, 2, places, width}), make_mask(f, {count, 2, places}), Tensor(DType::int32, {count})};
    const size_t token = static_cast<size_t>(width) * size_of(f), seen = size_of(f);
    Tensor embeds;
    for (int64_t i = 0; i < count; ++i) {
        const Job &job = jobs[static_cast<size_t>(i)];
        if (i == 0 || job.prompt != jobs[static_cast<size_t>(i) - 1].prompt) {
            embeds = engines_.embed(Modality::text, *job.ids);
            if (!reference.empty()) splice(embeds, *job.ids, [&](int32_t id) { return prompter_.is_replaced(id); }, reference[0]);
        }
        const size_t length = job.ids->size(), row = static_cast<size_t>(places);
        std::memcpy(prefix.embeds.at(i), embeds.at(0), length * token);
        std::memcpy(prefix.embeds.at(i) + row * token, embeds.at(0), token);
        std::memset(prefix.mask.at(i), 0, length * seen);
        std::memset(prefix.mask.at(i) + row * seen, 0, seen);
        prefix.first_position.as<int32_t>()[i] = static_cast<int32_t>(length);
    }
    return prefix;
}

Shape FlowDrawer::latents_shape(int64_t count) const {
    const Flow &flow = engines_.manifest().flow.value();
    return {count, flow.latent_channels, flow.latent_size, flow.latent_size};
}

Tensor FlowDrawer::make_noise(const std::vector<Job> &jobs) const {
    Tensor latents(DType::float32, latents_shape(static_cast<int64_t>(jobs.size())));
    for (size_t i = 0; i < jobs.size(); ++i) {
        const std::vector<float> noise = normal(jobs[i].seed, count_numbers(latents_shape(1)));
        std::memcpy(latents.at(static_cast<int64_t>(i)), noise.data(), noise.size() * sizeof(float));
    }
    return latents;
}

// Latents [n, …] -> those of each picture.
std::vector<Tensor> FlowDrawer::split(const Tensor &latents) const {
    const Shape shape = latents_shape(1);
    std::vector<Tensor> drawn;
    for (int64_t i = 0; i < latents.shape()[0]; ++i) {
        drawn.emplace_back(DType::float32, Shape(shape.begin() + 1, shape.end()));
        std::memcpy(drawn.back().as<char>(), latents.at(i), drawn.back().bytes());
    }
    return drawn;
}

std::vector<Tensor> FlowDrawer::draw(const std::vector<Job> &jobs, const std::vector<Tensor> &reference, const DrawSettings &settings,
                                     const janus_cancel_token *cancel, const OnBatchStep &on_step) {
    const Manifest &manifest = engines_.manifest();
    const Engine &engine = engines_["flow_step"];
    const KvCache &names = engine.graph().cache.value();
    const DType f = engine.graph().activations;
    const auto count = static_cast<int64_t>(jobs.size());
    const FlowSteps plan = make_steps(settings.solver, settings.schedule);
    const int steps = settings.schedule.steps;
    const int64_t width = manifest.language_model.hidden_size, heads = manifest.language_model.num_heads,
                  head_size = manifest.language_model.head_size;

    Tensor times(DType::float32, {steps}), time_embeds(DType::float32, {steps, width});
    Tensor conditions(DType::float32, {steps, manifest.flow->condition_size});
    std::copy(plan.times.begin(), plan.times.end(), times.as<float>());
    engines_["time_embed"].run({{"times", times.view()}}, {{"time_embeds", time_embeds.view()}, {"conditions", conditions.view()}});

    const Prefix prompt = make_prefix(jobs, reference);
    // After the first step the prefix is one token that nobody sees.
    const Tensor no_embeds(f, {count, 2, 1, width}), nothing_seen = make_mask(f, {count, 2, 1});
    const Tensor cfg_weight = repeat(static_cast<float>(settings.cfg_weight), count);
    // Before the first step the cache is one place that nobody sees; the first step gives the cache of all others.
    std::vector<Tensor> cache;
    for (size_t i = 0; i < names.inputs.size(); ++i) cache.emplace_back(names.dtype, Shape{count, 2, heads, 1, head_size});

    RunStop stop(cancel);
    Tensor latents = make_noise(jobs), before; // the velocity of the step before
    for (int step = 0; step < steps; ++step) {
        const bool is_first = step == 0;
        const int64_t tokens = is_first ? prompt.mask.shape()[2] : 1;
        const Tensor now = rows_of(time_embeds, step, count), condition = rows_of(conditions, step, count);
        const Tensor dt = repeat(plan.dt[static_cast<size_t>(step)], count);
        Tensor next(DType::float32, latents_shape(count)), velocity(DType::float32, latents_shape(count));
        std::vector<Tensor> made;
        for (size_t i = 0; i < names.outputs.size(); ++i) made.emplace_back(names.dtype, Shape{count, 2, heads, tokens, head_size});
        Named inputs{{"latents", latents.view()},
                     {"prefix_embeds", (is_first ? prompt.embeds : no_embeds).view()},
                     {"prefix_mask", (is_first ? prompt.mask : nothing_seen).view()},
                     {"past_mask", (is_first ? nothing_seen : prompt.mask).view()},
                     {"first_position", prompt.first_position.view()},
                     {"time_embeds", now.view()},
                     {"conditions", condition.view()},
                     {"cfg_weight", cfg_weight.view()},
                     {"dt", dt.view()}};
        Named outputs{{"next_latents", next.view()}, {"velocity", velocity.view()}};
        for (size_t i = 0; i < cache.size(); ++i) {
            inputs.emplace_back(names.inputs[i], cache[i].view());
            outputs.emplace_back(names.outputs[i], made[i].view());
        }
        if (!engine.run_unless(stop, inputs, outputs)) return {};
        if (is_first) cache = std::move(made);
        finish_step(next, plan.back[static_cast<size_t>(step)], before);
        latents = std::move(next);
        before = std::move(velocity);
        check_finite("flow_step", latents, " after " + std::to_string(step + 1) + " steps");
        on_step();
    }
    return split(latents);
}

} // namespace janus
