// From logits to ids: guidance, then the draw. Pure functions; the counterpart of janus_runtime/sampling/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace janus {

// Draws one id: the argmax of scores / temperature + Gumbel noise, which is a draw from softmax(scores / temperature). Temperature comes
// first, then top_k, then top_p.
struct Sampler {
    double temperature = 1; // 0 is greedy and takes no noise
    uint64_t top_k = 0;     // 0 keeps all
    double top_p = 1;       // 1 keeps all

    // Throws Error (JANUS_VALUE) on settings outside their range.
    void check() const;
    // Scores are used up. Of equal ones the lowest id wins.
    int32_t draw(std::vector<float> &scores, uint64_t seed, uint32_t step) const;
};

// How the rows of one picture are mixed into the scores that its next id is drawn from. Conditional rows come first.
struct Guidance {
    enum Kind {
        plain,     // one row, whose logits are the scores
        pairs,     // two: u + w (c - u)
        from_image // three, of a picture that is drawn from another: c = (both + v features) / (1 + v), then as pairs
    };
    Kind kind = plain;
    double cfg_weight = 1;
    double image_weight = 0;

    int rows() const { return kind == plain ? 1 : kind == pairs ? 2 : 3; }
    // Logits [rows, count] -> scores [count].
    std::vector<float> mix(const float *logits, size_t count) const;
};

} // namespace janus
