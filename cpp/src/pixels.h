// Pictures in and out of the graphs, to the bit as docs/bundle.md says.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace janus {

// Of a picture that comes in. More is a mistake or a decompression bomb.
constexpr uint64_t MAX_PIXELS = 80'000'000;

// 8-bit RGB, lines from the top, without gaps.
struct Rgb {
    uint32_t width = 0;
    uint32_t height = 0;
    std::vector<uint8_t> bytes;
};

// The manifest's image_input.
struct ImageInput {
    int size = 0;
    int min_size = 0;
    std::array<double, 3> mean{};
    std::array<double, 3> std{};
    std::array<int, 3> background{};
    int num_tokens = 0;
    bool includes_begin = false;
};

enum class Filter { bicubic, lanczos };

// Width first, then height, each rounded to 8 bits. A side that keeps its size is left alone. Sizes are at least 1.
Rgb resize(const Rgb &picture, uint32_t width, uint32_t height, Filter filter);
// An upright RGB picture to what the vision encoder gets, [3, size, size].
std::vector<float> preprocess(const Rgb &picture, const ImageInput &spec);
// Pixels [3, size, size] of the decoder to a picture: truncated, not rounded.
Rgb postprocess(const float *pixels, uint32_t size);

} // namespace janus
