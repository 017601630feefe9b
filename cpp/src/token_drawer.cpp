#include "token_drawer.h"

#include <algorithm>
#include <cstring>

#include "decoder.h"

namespace janus {

std::vector<std::string> TokenDrawer::graphs(bool from_image) const {
    std::vector<std::string> names{"image_embed", "image_head", "language_model.gqa", "text_embed", "image_decoder"};
    if (from_image) names.insert(names.end(), {"vision_encoder", "image_encoder"});
    return names;
}

std::vector<Tensor> TokenDrawer::encode_reference(const std::vector<float> &pixels) {
    const ImageOutput &output = engines_.manifest().image_output;
    Ids ids(static_cast<size_t>(output.num_tokens));
    engines_["image_encoder"].run({{"pixels", {DType::float32, {1, 3, output.size, output.size}, const_cast<float *>(pixels.data())}}},
                                  {{"image_ids", {DType::int32, {1, output.num_tokens}, ids.data()}}});
    std::vector<Tensor> reference;
    reference.push_back(engines_.encode_image(pixels));
    reference.push_back(engines_.embed(Modality::image, ids));
    return reference;
}

// The rows of one picture, as its guidance takes them.
std::vector<Tensor> TokenDrawer::embed_rows(const Ids &ids, const std::vector<Tensor> &reference) {
    const auto is_seen = [&](int32_t id) { return prompter_.is_replaced(id); };
    const auto is_pad = [&](int32_t id) { return id == engines_.manifest().tokens.pad.id; };
    std::vector<Tensor> rows;
    rows.push_back(engines_.embed(Modality::text, ids));
    if (!reference.empty()) {
        splice(rows[0], ids, is_seen, reference[0]);
        rows.push_back(engines_.embed(Modality::text, ids));
        splice(rows[1], ids, is_seen, reference[0]);
        splice(rows[0], ids, is_pad, reference[1]);
    }
    rows.push_back(engines_.embed(Modality::text, prompter_.blank(ids)));
    return rows;
}

// Prompts into their rows -> hidden states [rows of all jobs, D]. Pictures of one prompt have it computed once.
Tensor TokenDrawer::prefill(Decoder &decoder, const std::vector<Job> &jobs, const std::vector<Tensor> &reference, int rows) {
    const Engine &engine = engines_["language_model.gqa"];
    Tensor hidden(engine.graph().activations, {static_cast<int64_t>(jobs.size()) * rows, engines_.manifest().language_model.hidden_size});
    const size_t bytes = hidden.bytes() / static_cast<size_t>(hidden.shape()[0]);
    for (size_t job = 0; job < jobs.size(); ++job) {
        const int begin = static_cast<int>(job) * rows;
        const bool is_repeated = job && jobs[job].prompt == jobs[job - 1].prompt;
        const std::vector<Tensor> embeds = is_repeated ? std::vector<Tensor>() : embed_rows(*jobs[job].ids, reference);
        for (int row = 0; row < rows; ++row) {
            if (is_repeated) {
                decoder.copy(begin - rows + row, begin + row);
                std::memcpy(hidden.at(begin + row), hidden.at(begin - rows + row), bytes);
            } else {
                const Tensor last = decoder.prefill(begin + row, embeds[static_cast<size_t>(row)]);
                std::memcpy(hidden.at(begin + row), last.at(0), bytes);
            }
        }
    }
    return hidden;
}

std::vector<Tensor> TokenDrawer::draw(const std::vector<Job> &jobs, const std::vector<Tensor> &reference, const DrawSettings &settings,
                                      const janus_cancel_token *, const OnBatchStep &on_step) {
    const Guidance guidance = settings.guidance();
    const int rows = guidance.rows(), num_tokens = engines_.manifest().image_output.num_tokens;
    size_t longest = 0;
    for (const Job &job : jobs) longest = std::max(longest, job.ids->size());
    // The last id is not fed back.
    Decoder decoder(engines_, static_cast<int>(jobs.size()) * rows, static_cast<int>(longest) + num_tokens - 1);
    std::vector<Tensor> drawn;
    for (size_t i = 0; i < jobs.size(); ++i) drawn.emplace_back(DType::int32, Shape{num_tokens});
    Tensor hidden = prefill(decoder, jobs, reference, rows);
    for (int step = 0;; ++step) {
        const Tensor logits = engines_.predict(Modality::image, hidden, " after " + std::to_string(decoder.length(0)) + " tokens");
        const auto num_ids = static_cast<size_t>(logits.shape()[1]);
        Ids ids;
        for (size_t i = 0; i < jobs.size(); ++i) {
            std::vector<float> scores = guidance.mix(logits.as<float>() + i * static_cast<size_t>(rows) * num_ids, num_ids);
            const int32_t id = settings.sampler.draw(scores, jobs[i].seed, static_cast<uint32_t>(step));
            drawn[i].as<int32_t>()[step] = id;
            ids.insert(ids.end(), static_cast<size_t>(rows), id);
        }
        on_step();
        if (step == num_tokens - 1) return drawn;
        hidden = decoder.step(engines_.embed(Modality::image, ids));
    }
}

} // namespace janus
