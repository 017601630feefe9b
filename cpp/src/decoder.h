// Rows of the language model over one KV cache. The counterpart of janus_runtime/decoding/host_session.py.
#pragma once

#include <optional>
#include <vector>

#include "engines.h"

namespace janus {

// For one thread at a time. Letters: R rows, T tokens of a prompt, P places of the cache, D hidden size.
class Decoder {
public:
    Decoder(Engines &engines, int rows, int max_length);

    // Embeddings [T, D] after what a row holds -> hidden state [1, D] of the last. One call up to each multiple of 32 tokens counted from
    // the row's start: attention rounds by what a call holds, so a prompt is cut at the same places whatever was computed before.
    Tensor prefill(int row, const Tensor &embeds);
    // One token [R, D] for every row -> hidden [R, D].
    Tensor step(const Tensor &embeds);
    // Row `target` becomes a copy of row `source`.
    void copy(int source, int target);
    // Forgets what a row holds beyond `length`.
    void truncate(int row, int length) { lengths_[static_cast<size_t>(row)] = length; }
    int length(int row) const { return lengths_[static_cast<size_t>(row)]; }
    int max_length() const { return max_length_; }

private:
    Binding bind(int row, int count);
    // Embeddings [k, S, D] of rows that hold `before` [k] -> hidden [k, D].
    Tensor run(Binding &binding, const View &embeds, const std::vector<int32_t> &before);

    const Engine &engine_;
    const int max_length_;
    std::vector<int32_t> lengths_;
    std::vector<Tensor> cache_; // key 0, value 0, key 1, …, each [R, heads, P, head size]
    std::optional<Binding> all_rows_;
};

} // namespace janus
