// A question about pictures, or about none, and conversations. The counterpart of janus_runtime/answering.py and chat.py.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cancel.h"
#include "decoder.h"
#include "prompt.h"
#include "sampling.h"

namespace janus {

struct AskRequest {
    std::string text;
    std::vector<std::vector<float>> pixels; // [3, size, size] of each picture
    std::optional<int> max_tokens;
    Sampler sampler;
    uint64_t seed = 0;
};

struct AnswerReport {
    bool by_limit = false; // the limit ended it, not the model
    size_t num_tokens = 0;
    double load_ms = 0, encode_ms = 0, prefill_ms = 0, steps_ms = 0;
};

// A piece of the answer, whole characters, and the ids it came from; returns false to stop.
using OnText = std::function<bool(std::string_view text, const Ids &ids)>;

// Keeps its cache between turns. For one thread at a time.
class Conversation {
public:
    // At most `max_length` tokens. With `has_one_turn` its cache has no more room than that turn can need.
    Conversation(Engines &engines, const Prompter &prompter, int max_length, bool has_one_turn = false)
        : engines_(engines), prompter_(prompter), max_length_(max_length), has_one_turn_(has_one_turn) {}

    // One turn. Throws Error (JANUS_PROMPT, JANUS_CONVERSATION_FULL, JANUS_VALUE, JANUS_NUMERICAL, JANUS_CANCELLED, …), after which the
    // conversation can go on; a turn that gave no token has cost it nothing.
    AnswerReport say(const AskRequest &request, const janus_cancel_token *cancel, const OnText &on_text);

private:
    Tensor embed(const Ids &ids, const AskRequest &request, AnswerReport &report);
    void answer(Tensor hidden, int limit, const AskRequest &request, const janus_cancel_token *cancel, const OnText &on_text,
                const Stopwatch &watch, AnswerReport &report);

    Engines &engines_;
    const Prompter &prompter_;
    const int max_length_;
    const bool has_one_turn_;
    std::optional<Decoder> decoder_;
    // Ids that belong to the conversation but are not in the cache: the last one drawn, and the end of the turn.
    Ids unsaid_;
    bool is_first_ = true;
};

// A question alone.
AnswerReport describe(Engines &engines, const Prompter &prompter, const AskRequest &request, const janus_cancel_token *cancel,
                      const OnText &on_text);

} // namespace janus
