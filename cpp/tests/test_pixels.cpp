// Expected hashes are those of janus_runtime.pictures.image and Pillow 13 on the same noise.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "picture_samples.h"
#include "pixels.h"

namespace {

using janus::Filter;
using janus::Rgb;

const janus::ImageInput SPEC{48, 14, {0.5, 0.45, 0.4}, {0.5, 0.25, 0.3}, {127, 0, 255}, 36, false};

struct Sides {
    uint32_t width, height;
};

} // namespace

TEST_CASE("resize gives Pillow's bytes, tall and wide, down and up, both sides and one") {
    struct {
        Sides from, to;
        Filter filter;
        uint64_t expected;
    } const cases[] = {
        {{37, 23}, {20, 41}, Filter::bicubic, 0xc059a832d6defb8bu}, {{37, 23}, {20, 41}, Filter::lanczos, 0xf20dfad4bcfca162u},
        {{3, 200}, {14, 96}, Filter::bicubic, 0x89f09311e24ece78u}, {{200, 3}, {96, 14}, Filter::lanczos, 0x8904f3234a2e2e68u},
        {{64, 50}, {64, 13}, Filter::bicubic, 0x8911f659c89e3b5cu}, {{64, 50}, {11, 50}, Filter::lanczos, 0x3a6aca293b993347u},
        {{1, 1}, {5, 7}, Filter::bicubic, 0x35c4b8cfeb4f2285u},     {{90, 70}, {30, 30}, Filter::bicubic, 0xdc72170866119791u},
    };
    for (const auto &[from, to, filter, expected] : cases) {
        CAPTURE(from.width);
        CAPTURE(to.width);
        const Rgb resized = janus::resize(samples::noise(from.width, from.height), to.width, to.height, filter);
        CHECK(resized.width == to.width);
        CHECK(resized.height == to.height);
        CHECK(samples::hash(resized) == expected);
    }
}

TEST_CASE("a picture that keeps its size keeps its bytes, and one colour stays one colour") {
    const Rgb picture = samples::noise(9, 8);
    CHECK(janus::resize(picture, 9, 8, Filter::lanczos).bytes == picture.bytes);
    for (Filter filter : {Filter::bicubic, Filter::lanczos}) {
        const Rgb flat{31, 17, std::vector<uint8_t>(3 * 31 * 17, 201)};
        const Rgb resized = janus::resize(flat, 13, 40, filter);
        CHECK(std::all_of(resized.bytes.begin(), resized.bytes.end(), [](uint8_t byte) { return byte == 201; }));
    }
}

TEST_CASE("the width is scaled first") {
    const Rgb picture = samples::noise(30, 300);
    const Rgb wide = janus::resize(picture, 12, 300, Filter::bicubic);
    CHECK(janus::resize(picture, 12, 96, Filter::bicubic).bytes == janus::resize(wide, 12, 96, Filter::bicubic).bytes);
}

TEST_CASE("preprocess gives the floats of the Python runtime") {
    struct {
        Sides size;
        uint64_t expected;
    } const cases[] = {
        {{48, 48}, 0x3a92d644507c7302u}, {{120, 79}, 0x45551b9b5c960a41u}, {{79, 120}, 0x7742c0cea842a129u},
        {{5, 90}, 0x904a9d519c1ff944u},  {{90, 5}, 0x98a3fad5d97b9b53u},   {{1, 1}, 0xb187cf3287a04325u},
    };
    for (const auto &[size, expected] : cases) {
        CAPTURE(size.width);
        const std::vector<float> pixels = janus::preprocess(samples::noise(size.width, size.height), SPEC);
        REQUIRE(pixels.size() == 3 * 48 * 48);
        CHECK(samples::hash(pixels.data(), pixels.size() * sizeof(float)) == expected);
    }
}

TEST_CASE("what a picture does not cover is background") {
    const std::vector<float> pixels = janus::preprocess(samples::noise(90, 5), SPEC);
    CHECK(pixels[0] == (127.0f / 255 - 0.5f) / 0.5f);
    CHECK(pixels[48 * 48] == (0.0f - 0.45f) / 0.25f);
    CHECK(pixels[3 * 48 * 48 - 1] == (1.0f - 0.4f) / 0.3f);
}

TEST_CASE("postprocess truncates, clips, and takes NaN for black") {
    std::vector<float> pixels(3 * 4 * 4);
    const float values[] = {-2.0f, -1.0f, 0.0f, 0.9999f, 1.0f, 3.0f, std::numeric_limits<float>::quiet_NaN(), -INFINITY};
    const uint8_t expected[] = {0, 0, 127, 254, 255, 255, 0, 0};
    std::copy(std::begin(values), std::end(values), pixels.begin() + 16);
    const Rgb picture = janus::postprocess(pixels.data(), 4);
    REQUIRE(picture.bytes.size() == pixels.size());
    for (size_t place = 0; place < 8; ++place) {
        CAPTURE(place);
        CHECK(picture.bytes[3 * place] == 127);
        CHECK(picture.bytes[3 * place + 1] == expected[place]);
    }
}
