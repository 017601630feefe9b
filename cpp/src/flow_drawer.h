// How JanusFlow draws: seeded noise -> steps of a guided flow, over one prompt -> latents.
#pragma once

#include "drawing.h"

namespace janus {

class FlowDrawer : public Drawer {
public:
    FlowDrawer(Engines &engines, const Prompter &prompter) : engines_(engines), prompter_(prompter) {}

    std::vector<std::string> graphs(bool from_image) const override;
    int num_steps(const DrawSettings &settings) const override { return settings.schedule.steps; }
    // The length that a prompt is padded to: a step rounds by it, so only pictures of one padded length share a call.
    int batch_key(const Ids &ids) const override;
    std::vector<Tensor> encode_reference(const std::vector<float> &pixels) override;
    std::vector<Tensor> draw(const std::vector<Job> &jobs, const std::vector<Tensor> &reference, const DrawSettings &settings,
                             const janus_cancel_token *cancel, const OnBatchStep &on_step) override;

private:
    struct Prefix;
    Prefix make_prefix(const std::vector<Job> &jobs, const std::vector<Tensor> &reference);
    Shape latents_shape(int64_t count) const;
    Tensor make_noise(const std::vector<Job> &jobs) const;
    std::vector<Tensor> split(const Tensor &latents) const;

    Engines &engines_;
    const Prompter &prompter_;
};

} // namespace janus
