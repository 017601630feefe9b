#include "noise.h"

#include <cmath>

namespace janus {
namespace {

// u = ((bits >> 8) + 0.5) / 2^24, in whole blocks of four.
std::vector<double> uniform(uint64_t seed, uint32_t step, size_t count) {
    const std::array<uint32_t, 2> key{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
    const size_t num_blocks = (count + 3) / 4;
    std::vector<double> numbers;
    numbers.reserve(4 * num_blocks);
    for (size_t block = 0; block < num_blocks; ++block) {
        for (const uint32_t word : philox4x32({step, static_cast<uint32_t>(block), 0, 0}, key)) {
            numbers.push_back((static_cast<double>(word >> 8) + 0.5) / 16777216.0);
        }
    }
    return numbers;
}

} // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t first = uint64_t{counter[0]} * 0xD2511F53, second = uint64_t{counter[2]} * 0xCD9E8D57;
        counter = {static_cast<uint32_t>(second >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(second),
                   static_cast<uint32_t>(first >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(first)};
        key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
    }
    return counter;
}

std::vector<float> gumbel(uint64_t seed, uint32_t step, size_t count) {
    const std::vector<double> numbers = uniform(seed, step, count);
    std::vector<float> noise(count);
    for (size_t i = 0; i < count; ++i) noise[i] = static_cast<float>(-std::log(-std::log(numbers[i])));
    return noise;
}

std::vector<float> normal(uint64_t seed, size_t count) {
    const double two_pi = 6.283185307179586; // as 2 * M_PI rounds
    const std::vector<double> numbers = uniform(seed, 0, count);
    std::vector<float> noise(count);
    for (size_t i = 0; i < count; ++i) {
        const double radius = std::sqrt(-2 * std::log(numbers[i & ~size_t{1}])), angle = two_pi * numbers[i | 1];
        noise[i] = static_cast<float>(radius * (i & 1 ? std::sin(angle) : std::cos(angle)));
    }
    return noise;
}

} // namespace janus
