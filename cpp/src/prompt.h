// Text in: conversation -> prompt string -> ids, its unconditional twin, pictures' places. The counterpart of janus_runtime/prompt.py.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "bundle.h"
#include "engines.h"
#include "tokenizer.h"

namespace janus {

// Any number of threads may use it.
class Prompter {
public:
    explicit Prompter(const Bundle &bundle);

    // The ids [T] of a prompt that draws, BOS first. With `from_image` a reference picture has its places in it. Throws Error
    // (JANUS_PROMPT).
    Ids image(const std::string &text, bool from_image) const;
    // The unconditional twin [T]: everything between the first and the last id becomes pad.
    Ids blank(const Ids &ids) const;
    // One user turn with its pictures' places; BOS and system text on the first only. Throws Error (JANUS_PROMPT).
    Ids question(const std::string &text, size_t num_images, bool first) const;
    // Whether the embedding of this id gives way to a picture's features.
    bool is_replaced(int32_t id) const;

    const Tokenizer &tokenizer() const { return tokenizer_; }

private:
    const std::string &check(const std::string &text) const;
    Ids expand(const Ids &ids) const;

    const Manifest &manifest_;
    Tokenizer tokenizer_;
    std::vector<std::string> reserved_;
};

// Writes features over those embeddings [T, D] whose id is `chosen`, in order.
template <typename Chosen> void splice(Tensor &embeds, const Ids &ids, Chosen chosen, const Tensor &features) {
    const size_t row = features.bytes() / static_cast<size_t>(features.shape()[0]);
    int64_t next = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
        if (chosen(ids[i]) && next < features.shape()[0]) std::copy_n(features.at(next++), row, embeds.at(static_cast<int64_t>(i)));
    }
}

} // namespace janus
