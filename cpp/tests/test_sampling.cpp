#include <doctest/doctest.h>

#include <cmath>

#include "error.h"
#include "sampling.h"

using janus::Guidance;
using janus::Sampler;

TEST_CASE("greedy takes the largest, the lowest id of equal ones") {
    std::vector<float> scores{1, 3, 3, 2};
    CHECK(Sampler{0, 0, 1}.draw(scores, 5, 0) == 1);
}

TEST_CASE("top_k and top_p leave only what they keep") {
    for (uint64_t seed = 0; seed < 200; ++seed) {
        std::vector<float> scores{0, 1, 2, 3, 3, -4};
        const int32_t id = Sampler{1, 1, 1}.draw(scores, seed, 0);
        CHECK((id == 3 || id == 4)); // ties with the k-th stay
        std::vector<float> others{0, 10, 0, 0};
        CHECK(Sampler{1, 0, 0.5}.draw(others, seed, 0) == 1);
    }
}

TEST_CASE("draws follow the softmax") {
    size_t count = 0;
    constexpr size_t draws = 20'000;
    for (uint64_t seed = 0; seed < draws; ++seed) {
        std::vector<float> scores{0, std::log(3.0F)};
        count += static_cast<size_t>(Sampler{}.draw(scores, seed, 0));
    }
    CHECK(static_cast<double>(count) / draws == doctest::Approx(0.75).epsilon(0.015));
}

TEST_CASE("settings out of range are refused") {
    for (const Sampler &sampler : {Sampler{-1, 0, 1}, Sampler{1e-5, 0, 1}, Sampler{std::nan(""), 0, 1}, Sampler{1, 0, 0},
                                   Sampler{1, 0, 1.1}, Sampler{1, 0, std::nan("")}}) {
        CHECK_THROWS_AS(sampler.check(), janus::Error);
    }
}

TEST_CASE("guidance mixes the rows of a picture") {
    const float logits[] = {1, 2, 3, 4, 5, 7};
    CHECK(Guidance{Guidance::plain}.mix(logits, 2) == std::vector<float>{1, 2});
    CHECK(Guidance{Guidance::pairs, 5, 0}.mix(logits, 2) == std::vector<float>{3 + 5 * (1.0F - 3), 4 + 5 * (2.0F - 4)});
    CHECK(Guidance{Guidance::from_image, 2, 3}.mix(logits, 2) ==
          std::vector<float>{5 + 2 * ((1 + 3 * 3.0F) / 4 - 5), 7 + 2 * ((2 + 3 * 4.0F) / 4 - 7)});
}
