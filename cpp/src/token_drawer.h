// How Janus and Janus-Pro draw: one id after another under guidance.
#pragma once

#include "drawing.h"

namespace janus {

class Decoder;

class TokenDrawer : public Drawer {
public:
    TokenDrawer(Engines &engines, const Prompter &prompter) : engines_(engines), prompter_(prompter) {}

    std::vector<std::string> graphs(bool from_image) const override;
    int num_steps(const DrawSettings &) const override { return engines_.manifest().image_output.num_tokens; }
    // Attention ends at each row's own length: prompts of any lengths share a batch.
    int batch_key(const Ids &) const override { return 0; }
    std::vector<Tensor> encode_reference(const std::vector<float> &pixels) override;
    std::vector<Tensor> draw(const std::vector<Job> &jobs, const std::vector<Tensor> &reference, const DrawSettings &settings,
                             const janus_cancel_token *cancel, const OnBatchStep &on_step) override;

private:
    std::vector<Tensor> embed_rows(const Ids &ids, const std::vector<Tensor> &reference);
    Tensor prefill(Decoder &decoder, const std::vector<Job> &jobs, const std::vector<Tensor> &reference, int rows);

    Engines &engines_;
    const Prompter &prompter_;
};

} // namespace janus
