#include "sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "error.h"
#include "noise.h"
#include "python_repr.h"

namespace janus {
namespace {

constexpr float RULED_OUT = -std::numeric_limits<float>::infinity();

// Ties with the k-th stay.
void keep_top_k(std::vector<float> &scores, size_t k) {
    if (k >= scores.size()) return;
    std::vector<float> sorted = scores;
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(k) - 1, sorted.end(), std::greater<>());
    const float kth = sorted[k - 1];
    for (float &score : scores) {
        if (score < kth) score = RULED_OUT;
    }
}

// The fewest ids, most likely first and the lower of equally likely ones, whose probabilities reach `top_p`.
void keep_top_p(std::vector<float> &scores, double top_p) {
    std::vector<uint32_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0U);
    std::stable_sort(order.begin(), order.end(), [&](uint32_t one, uint32_t other) { return scores[one] > scores[other]; });
    std::vector<double> weights(scores.size());
    const double largest = scores[order[0]];
    for (size_t i = 0; i < order.size(); ++i) weights[i] = std::exp(scores[order[i]] - largest);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    double reached = 0;
    for (size_t i = 0; i < order.size(); ++i) {
        const double weight = weights[i] / sum;
        reached += weight;
        if (i && reached - weight >= top_p) scores[order[i]] = RULED_OUT;
    }
}

} // namespace

void Sampler::check() const {
    if (temperature != 0 && !(temperature >= 1e-4 && temperature <= 1e6)) {
        throw Error(JANUS_VALUE, "temperature is " + python_repr(temperature) + "; expected 0 (greedy) or 0.0001 to 1000000");
    }
    if (!(top_p > 0 && top_p <= 1)) {
        throw Error(JANUS_VALUE, "top_p is " + python_repr(top_p) + "; expected a number above 0 and up to 1 (all ids)");
    }
}

int32_t Sampler::draw(std::vector<float> &scores, uint64_t seed, uint32_t step) const {
    if (temperature != 0) {
        const auto divisor = static_cast<float>(temperature);
        for (float &score : scores) score /= divisor;
        if (top_k) keep_top_k(scores, static_cast<size_t>(top_k));
        if (top_p < 1) keep_top_p(scores, top_p);
        const std::vector<float> noise = gumbel(seed, step, scores.size());
        for (size_t i = 0; i < scores.size(); ++i) scores[i] += noise[i];
    }
    return static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

std::vector<float> Guidance::mix(const float *logits, size_t count) const {
    std::vector<float> scores(logits, logits + count);
    if (kind == plain) return scores;
    const float *blank = logits + count * static_cast<size_t>(rows() - 1), *features = logits + count;
    const auto w = static_cast<float>(cfg_weight), v = static_cast<float>(image_weight), sum = static_cast<float>(1 + image_weight);
    for (size_t i = 0; i < count; ++i) {
        const float cond = kind == pairs ? scores[i] : (scores[i] + v * features[i]) / sum;
        scores[i] = blank[i] + w * (cond - blank[i]);
    }
    return scores;
}

} // namespace janus
