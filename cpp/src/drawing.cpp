#include "drawing.h"

#include <cmath>

#include "flow_drawer.h"
#include "python_repr.h"
#include "token_drawer.h"

namespace janus {
namespace {

constexpr double MAX_CFG_WEIGHT = 1000;

std::optional<double> make_image_weight(const Manifest &manifest, std::optional<double> asked, bool from_image) {
    if (!asked) return from_image && !manifest.flow ? std::optional(IMAGE_WEIGHT) : std::nullopt;
    if (!from_image) {
        throw Error(JANUS_VALUE, "image_weight is how much a picture counts, and there is none; give image too, or leave it out");
    }
    if (manifest.flow) {
        throw Error(JANUS_VALUE, "this model only sees a picture and has no ids of it to weigh that against; leave image_weight out");
    }
    if (!(*asked >= 0 && *asked <= MAX_CFG_WEIGHT))
        throw Error(JANUS_VALUE, "image_weight is " + python_repr(*asked) + "; expected 0 to 1000");
    return asked;
}

// The pictures of a request, batch by batch: cut where a batch is full, or where the next prompt may not join it.
class Batches {
public:
    Batches(const Drawer &drawer, const std::vector<Ids> &ids, const DrawRequest &request) : ids_(ids), request_(request) {
        for (size_t prompt = 0; prompt < ids.size(); ++prompt) {
            const bool joins = prompt && drawer.batch_key(ids[prompt]) == drawer.batch_key(ids[prompt - 1]);
            if (!joins) ends_.push_back(prompt * request.n);
            ends_.back() = (prompt + 1) * request.n;
        }
    }

    size_t count() const {
        size_t count = 0, begin = 0;
        for (const size_t end : ends_) {
            count += (end - begin + request_.batch_size - 1) / request_.batch_size;
            begin = end;
        }
        return count;
    }

    // Empty after the last.
    std::vector<Job> next() {
        std::vector<Job> jobs;
        while (group_ < ends_.size() && number_ == ends_[group_]) ++group_;
        for (; group_ < ends_.size() && number_ < ends_[group_] && jobs.size() < request_.batch_size; ++number_) {
            const size_t prompt = number_ / request_.n;
            jobs.push_back({number_, prompt, request_.seed + number_ % request_.n, &ids_[prompt]});
        }
        return jobs;
    }

private:
    const std::vector<Ids> &ids_;
    const DrawRequest &request_;
    std::vector<size_t> ends_; // of each run of prompts that share batches, in pictures
    size_t group_ = 0, number_ = 0;
};

} // namespace

DrawSettings make_settings(const Manifest &manifest, const AskedSettings &asked, bool from_image) {
    DrawSettings settings;
    settings.sampler = {asked.temperature.value_or(manifest.defaults.temperature), asked.top_k, asked.top_p};
    settings.sampler.check();
    settings.cfg_weight = asked.cfg_weight.value_or(manifest.defaults.cfg_weight);
    if (!(std::fabs(settings.cfg_weight) <= MAX_CFG_WEIGHT)) {
        throw Error(JANUS_VALUE, "cfg_weight is " + python_repr(settings.cfg_weight) + "; expected -1000 to 1000");
    }
    if (manifest.flow) {
        if (settings.sampler.temperature != 1 || asked.top_k || asked.top_p != 1) {
            throw Error(JANUS_VALUE, "this model draws by a flow and has no ids to choose from; leave temperature, top_k and top_p out");
        }
        settings.solver = asked.solver.value_or(FlowSolver::euler);
        settings.schedule = manifest.flow->schedule(settings.solver);
        settings.schedule.steps = asked.steps.value_or(settings.schedule.steps);
        if (settings.schedule.steps < 1 || settings.schedule.steps > MAX_STEPS) {
            throw Error(JANUS_VALUE,
                        "steps is " + std::to_string(settings.schedule.steps) + "; expected 1 to " + std::to_string(MAX_STEPS));
        }
    } else if (asked.steps || asked.solver) {
        throw Error(JANUS_VALUE, "this model draws " + std::to_string(manifest.image_output.num_tokens) + " ids, one a step; " +
                                     (asked.steps ? "steps are JanusFlow's: leave them out" : "a solver is JanusFlow's: leave it out"));
    }
    settings.image_weight = make_image_weight(manifest, asked.image_weight, from_image);
    return settings;
}

std::unique_ptr<Drawer> make_drawer(Engines &engines, const Prompter &prompter) {
    if (engines.manifest().flow) return std::make_unique<FlowDrawer>(engines, prompter);
    return std::make_unique<TokenDrawer>(engines, prompter);
}

void draw_pictures(Engines &engines, const Prompter &prompter, Drawer &drawer, const DrawRequest &request, const janus_cancel_token *cancel,
                   const std::function<bool(size_t, size_t)> &on_step, const std::function<bool(const DrawnPicture &)> &on_picture) {
    const bool from_image = request.pixels.has_value();
    std::vector<Ids> ids;
    for (const std::string &prompt : request.prompts) ids.push_back(prompter.image(prompt, from_image));
    Batches batches(drawer, ids, request);
    const size_t total = batches.count() * static_cast<size_t>(drawer.num_steps(request.settings));
    const auto stop_here = [&](size_t step) { stop(std::to_string(step) + " of " + std::to_string(total) + " steps"); };
    size_t step = 0;
    const auto check_cancel = [&] {
        if (is_set(cancel)) stop_here(step);
    };
    check_cancel();
    const double load_ms = engines.open(drawer.graphs(from_image));
    const Stopwatch encoding;
    const std::vector<Tensor> reference = from_image ? drawer.encode_reference(*request.pixels) : std::vector<Tensor>();
    const double encode_ms = from_image ? encoding.ms() : 0;
    for (std::vector<Job> jobs = batches.next(); !jobs.empty(); jobs = batches.next()) {
        const Stopwatch watch;
        double prefill_ms = 0;
        const size_t begun_at = step;
        const std::vector<Tensor> drawn = drawer.draw(jobs, reference, request.settings, cancel, [&] {
            ++step;
            if (step == begun_at + 1) prefill_ms = watch.ms();
            if (!on_step(step, total)) stop_here(step);
            check_cancel();
        });
        check_cancel();
        const double steps_ms = watch.ms() - prefill_ms;
        for (size_t i = 0; i < jobs.size(); ++i) {
            const Stopwatch decoding;
            const Tensor pixels = engines.decode_picture(drawn[i]);
            const Rgb rgb = postprocess(pixels.as<float>(), static_cast<uint32_t>(engines.manifest().image_output.size));
            if (!on_picture({jobs[i], rgb, drawn[i], load_ms, encode_ms, prefill_ms, steps_ms, decoding.ms()})) stop_here(step);
            check_cancel();
        }
    }
}

} // namespace janus
