#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "noise.h"

namespace {

nlohmann::json read_vectors() {
    std::ifstream stream(JANUS_CONTRACT "/noise.json");
    return nlohmann::json::parse(stream);
}

std::string bits_of(float number) {
    uint32_t bits = 0;
    std::memcpy(&bits, &number, sizeof bits);
    char text[9];
    std::snprintf(text, sizeof text, "%08x", bits);
    return text;
}

size_t compare(const std::vector<float> &noise, const nlohmann::json &vector) {
    const auto &places = vector.at("places"), &bits = vector.at("bits");
    for (size_t i = 0; i < places.size(); ++i) CHECK(bits_of(noise.at(places[i].get<size_t>())) == bits[i].get<std::string>());
    return places.size();
}

} // namespace

TEST_CASE("noise is the contract's to the bit") {
    const nlohmann::json vectors = read_vectors();
    size_t compared = 0;
    for (const auto &vector : vectors.at("gumbel")) {
        const std::vector<float> noise =
            janus::gumbel(vector.at("seed").get<uint64_t>(), vector.at("step").get<uint32_t>(), vector.at("num_ids").get<size_t>());
        compared += compare(noise, vector);
    }
    for (const auto &vector : vectors.at("normal")) {
        size_t count = 1;
        for (const auto &size : vector.at("shape")) count *= size.get<size_t>();
        compared += compare(janus::normal(vector.at("seed").get<uint64_t>(), count), vector);
    }
    CHECK(compared > 0);
}

TEST_CASE("Philox's published vectors") {
    using Words = std::array<uint32_t, 4>;
    CHECK(janus::philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    CHECK(janus::philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
          Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}
