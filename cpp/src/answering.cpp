#include "answering.h"

#include <algorithm>

namespace janus {
namespace {

int find_limit(const Manifest &manifest, const AskRequest &request, int held, size_t count, int max_length) {
    const int64_t room = int64_t{max_length} - held - static_cast<int64_t>(count);
    if (room < 1) {
        throw Error(JANUS_CONVERSATION_FULL, "the conversation would have " + std::to_string(max_length - room) + " tokens, the limit is " +
                                                 std::to_string(max_length) +
                                                 " with at least one left for the answer; use fewer pictures or less text, or start a new "
                                                 "conversation");
    }
    const int max_tokens = request.max_tokens.value_or(manifest.defaults.max_tokens);
    if (max_tokens < 1) throw Error(JANUS_VALUE, "max_tokens is " + std::to_string(max_tokens) + "; expected 1 or more");
    return static_cast<int>(std::min<int64_t>(max_tokens, room));
}

std::vector<std::string> graphs_of(const AskRequest &request) {
    std::vector<std::string> names{"text_embed", "text_head", "language_model.gqa"};
    if (!request.pixels.empty()) names.push_back("vision_encoder");
    return names;
}

void check_cancel(const janus_cancel_token *cancel, size_t num_tokens) {
    if (is_set(cancel)) stop(std::to_string(num_tokens) + " tokens");
}

} // namespace

AnswerReport describe(Engines &engines, const Prompter &prompter, const AskRequest &request, const janus_cancel_token *cancel,
                      const OnText &on_text) {
    return Conversation(engines, prompter, engines.manifest().language_model.max_length, true).say(request, cancel, on_text);
}

AnswerReport Conversation::say(const AskRequest &request, const janus_cancel_token *cancel, const OnText &on_text) {
    request.sampler.check();
    Ids ids = unsaid_;
    const Ids turn = prompter_.question(request.text, request.pixels.size(), is_first_);
    ids.insert(ids.end(), turn.begin(), turn.end());
    const int held = decoder_ ? decoder_->length(0) : 0;
    const int limit = find_limit(engines_.manifest(), request, held, ids.size(), max_length_);
    check_cancel(cancel, 0);
    AnswerReport report;
    report.load_ms = engines_.open(graphs_of(request));
    const Tensor embeds = embed(ids, request, report);
    check_cancel(cancel, 0);
    if (!decoder_) decoder_.emplace(engines_, 1, has_one_turn_ ? static_cast<int>(ids.size()) + limit : max_length_);
    const Stopwatch watch;
    try {
        answer(decoder_->prefill(0, embeds), limit, request, cancel, on_text, watch, report);
    } catch (...) {
        // The cache keeps what `unsaid_` lacks: all but the last id, and nothing of a turn without ids.
        const int said = held + static_cast<int>(ids.size() + report.num_tokens) - 1;
        decoder_->truncate(0, report.num_tokens ? std::min(decoder_->length(0), said) : held);
        throw;
    }
    report.steps_ms = watch.ms() - report.prefill_ms;
    return report;
}

Tensor Conversation::embed(const Ids &ids, const AskRequest &request, AnswerReport &report) {
    const Stopwatch watch;
    Tensor embeds = engines_.embed(Modality::text, ids);
    const ImageInput &input = engines_.manifest().image_input;
    Tensor features(embeds.dtype(), {static_cast<int64_t>(request.pixels.size()) * input.num_tokens, embeds.shape()[1]});
    for (size_t i = 0; i < request.pixels.size(); ++i) { // one at a time: activations are large
        const Tensor picture = engines_.encode_image(request.pixels[i]);
        std::copy_n(picture.at(0), picture.bytes(), features.at(static_cast<int64_t>(i) * input.num_tokens));
    }
    if (!request.pixels.empty()) splice(embeds, ids, [&](int32_t id) { return prompter_.is_replaced(id); }, features);
    report.encode_ms = watch.ms();
    return embeds;
}

void Conversation::answer(Tensor hidden, int limit, const AskRequest &request, const janus_cancel_token *cancel, const OnText &on_text,
                          const Stopwatch &watch, AnswerReport &report) {
    const int32_t eos = engines_.manifest().tokens.eos.id;
    TextStream stream(prompter_.tokenizer());
    Ids unsaid;
    const auto say = [&](const std::string &text) {
        if (!on_text(text, unsaid)) stop(std::to_string(report.num_tokens) + " tokens");
        unsaid.clear();
    };
    for (int step = 0; step < limit; ++step) {
        const Tensor logits = engines_.predict(Modality::text, hidden, " after " + std::to_string(decoder_->length(0)) + " tokens");
        std::vector<float> scores(logits.as<float>(), logits.as<float>() + logits.shape()[1]);
        const int32_t id = request.sampler.draw(scores, request.seed, static_cast<uint32_t>(step));
        if (step == 0) report.prefill_ms = watch.ms();
        is_first_ = false;
        unsaid_ = {eos};
        if (id == eos) break;
        unsaid_.insert(unsaid_.begin(), id);
        unsaid.push_back(id);
        ++report.num_tokens;
        report.by_limit = step == limit - 1;
        if (const std::string text = stream.feed(id); !text.empty()) say(text);
        check_cancel(cancel, report.num_tokens);
        if (!report.by_limit) hidden = decoder_->step(engines_.embed(Modality::text, {id}));
    }
    if (const std::string rest = stream.end(); !rest.empty() || !unsaid.empty()) say(rest);
}

} // namespace janus
