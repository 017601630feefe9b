// Compile without fused multiply-adds (-ffp-contract=off): every product and sum is rounded by itself, as in Pillow and NumPy.
#include "pixels.h"

#include <algorithm>
#include <cmath>

namespace janus {
namespace {

constexpr int CHANNELS = 3;
// Weights are whole multiples of 2^-22, so that a sum of them times 255 fits 32 bits.
constexpr int PRECISION_BITS = 22, HALF = 1 << (PRECISION_BITS - 1);
constexpr double PI = 3.14159265358979323846;

// The cubic of a = -0.5, factored as Pillow does.
double cubic(double x) {
    x = std::fabs(x);
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * -0.5;
    return 0.0;
}

double sinc(double x) {
    if (x == 0.0) return 1.0;
    x *= PI;
    return std::sin(x) / x;
}

double lanczos3(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

struct Kernel {
    double (*weight)(double);
    double support;
};

// The pixels of a line that make up one of the scaled line.
struct Window {
    size_t first;
    std::vector<double> exact;
    std::vector<int32_t> weights;
};

void place_window(Window &window, const Kernel &kernel, uint32_t from, uint32_t to, uint32_t place) {
    // Pillow keeps the side in fp32, which rounds one of more than 2^24 pixels.
    const double scale = static_cast<double>(static_cast<float>(from)) / to;
    const double stretch = std::max(scale, 1.0), inverse = 1.0 / stretch;
    const double support = kernel.support * stretch, centre = (place + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(centre - support + 0.5), 0);
    const int64_t end = std::min<int64_t>(static_cast<int64_t>(centre + support + 0.5), from);
    window.first = static_cast<size_t>(first);
    window.exact.clear();
    window.weights.clear();
    double sum = 0.0;
    for (int64_t pixel = first; pixel < end; ++pixel) {
        window.exact.push_back(kernel.weight((static_cast<double>(pixel) - centre + 0.5) * inverse));
        sum += window.exact.back();
    }
    for (double weight : window.exact) {
        const double scaled = weight / sum * (1 << PRECISION_BITS);
        window.weights.push_back(static_cast<int32_t>(scaled < 0 ? -0.5 + scaled : 0.5 + scaled));
    }
}

uint8_t clip(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> PRECISION_BITS, 0, 255)); }

// Parallel lines of pixels, rows or columns: how many bytes from a pixel to the next of its line, and from a line to the next.
struct Lines {
    size_t step;
    size_t stride;
};

void scale_lines(const uint8_t *in, Lines in_lines, uint32_t from, uint8_t *out, Lines out_lines, uint32_t to, uint32_t count,
                 const Kernel &kernel) {
    Window window;
    for (uint32_t place = 0; place < to; ++place) {
        place_window(window, kernel, from, to, place);
        for (uint32_t line = 0; line < count; ++line) {
            const uint8_t *pixel = in + line * in_lines.stride + window.first * in_lines.step;
            int32_t red = HALF, green = HALF, blue = HALF;
            for (int32_t weight : window.weights) {
                red += pixel[0] * weight;
                green += pixel[1] * weight;
                blue += pixel[2] * weight;
                pixel += in_lines.step;
            }
            uint8_t *scaled = out + line * out_lines.stride + place * out_lines.step;
            scaled[0] = clip(red);
            scaled[1] = clip(green);
            scaled[2] = clip(blue);
        }
    }
}

Rgb make_picture(uint32_t width, uint32_t height) { return {width, height, std::vector<uint8_t>(size_t{CHANNELS} * width * height)}; }

Rgb scale_width(const Rgb &picture, uint32_t width, const Kernel &kernel) {
    Rgb result = make_picture(width, picture.height);
    const Lines in{CHANNELS, size_t{CHANNELS} * picture.width}, out{CHANNELS, size_t{CHANNELS} * width};
    scale_lines(picture.bytes.data(), in, picture.width, result.bytes.data(), out, width, picture.height, kernel);
    return result;
}

Rgb scale_height(const Rgb &picture, uint32_t height, const Kernel &kernel) {
    Rgb result = make_picture(picture.width, height);
    const Lines columns{size_t{CHANNELS} * picture.width, CHANNELS};
    scale_lines(picture.bytes.data(), columns, picture.height, result.bytes.data(), columns, height, picture.width, kernel);
    return result;
}

// What each byte of a channel becomes: fp64 up to 1/255, then fp32.
std::vector<float> normalise_bytes(double mean, double std) {
    std::vector<float> values(256);
    for (int byte = 0; byte < 256; ++byte) {
        const auto scaled = static_cast<float>(byte * (1.0 / 255));
        values[static_cast<size_t>(byte)] = (scaled - static_cast<float>(mean)) / static_cast<float>(std);
    }
    return values;
}

// The original divides first; in another order some sides come out one pixel shorter.
uint32_t target_side(uint32_t side, uint32_t longest, const ImageInput &spec) {
    const double share = static_cast<double>(side) / longest;
    return static_cast<uint32_t>(std::max(static_cast<int>(share * spec.size), spec.min_size));
}

} // namespace

Rgb resize(const Rgb &picture, uint32_t width, uint32_t height, Filter filter) {
    const Kernel kernel = filter == Filter::bicubic ? Kernel{cubic, 2.0} : Kernel{lanczos3, 3.0};
    if (width == picture.width) return height == picture.height ? picture : scale_height(picture, height, kernel);
    Rgb wide = scale_width(picture, width, kernel);
    return height == picture.height ? wide : scale_height(wide, height, kernel);
}

std::vector<float> preprocess(const Rgb &picture, const ImageInput &spec) {
    const uint32_t longest = std::max(picture.width, picture.height);
    const uint32_t width = target_side(picture.width, longest, spec), height = target_side(picture.height, longest, spec);
    const Rgb resized = resize(picture, width, height, Filter::bicubic);
    const auto size = static_cast<uint32_t>(spec.size);
    const size_t left = (size - width) / 2, top = (size - height) / 2;
    std::vector<float> pixels;
    pixels.reserve(size_t{CHANNELS} * size * size);
    for (size_t channel = 0; channel < CHANNELS; ++channel) {
        const std::vector<float> values = normalise_bytes(spec.mean[channel], spec.std[channel]);
        const float background = values[static_cast<size_t>(spec.background[channel])];
        const size_t start = pixels.size();
        pixels.resize(start + size_t{size} * size, background);
        for (size_t y = 0; y < height; ++y) {
            float *row = pixels.data() + start + (top + y) * size + left;
            const uint8_t *bytes = resized.bytes.data() + CHANNELS * y * width + channel;
            for (size_t x = 0; x < width; ++x) row[x] = values[bytes[CHANNELS * x]];
        }
    }
    return pixels;
}

Rgb postprocess(const float *pixels, uint32_t size) {
    Rgb picture = make_picture(size, size);
    const size_t plane = size_t{size} * size;
    for (size_t channel = 0; channel < CHANNELS; ++channel) {
        for (size_t place = 0; place < plane; ++place) {
            const float scaled = (pixels[channel * plane + place] + 1.0f) / 2.0f * 255.0f;
            // NaN fails the comparison, and has no value as a byte.
            picture.bytes[CHANNELS * place + channel] = scaled > 0.0f ? static_cast<uint8_t>(std::min(scaled, 255.0f)) : uint8_t{0};
        }
    }
    return picture;
}

} // namespace janus
