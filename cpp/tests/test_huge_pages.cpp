#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "huge_pages.h"

using janus::Ranges;

TEST_CASE("what is left of ranges are the addresses that the others lack") {
    CHECK(janus::subtract({{0, 10}, {20, 30}}, {}) == Ranges{{0, 10}, {20, 30}});
    CHECK(janus::subtract({{0, 10}, {20, 30}}, {{0, 10}, {20, 30}}) == Ranges{});
    CHECK(janus::subtract({{0, 10}, {20, 30}}, {{3, 5}, {8, 25}}) == Ranges{{0, 3}, {5, 8}, {25, 30}});
    CHECK(janus::subtract({{5, 10}}, {{0, 6}, {9, 20}}) == Ranges{{6, 9}});
}

TEST_CASE("memory of this process is found") {
    std::vector<char> memory(64 << 20, 7);
    const auto place = reinterpret_cast<uintptr_t>(memory.data());
    const Ranges before = janus::anonymous_ranges();
    REQUIRE(!before.empty());
    CHECK(std::any_of(before.begin(), before.end(), [&](const auto &range) { return range.first <= place && place < range.second; }));
    janus::collapse_since(before); // of what came since, which is nothing
    janus::collapse_since({});
    CHECK(std::all_of(memory.begin(), memory.end(), [](char value) { return value == 7; }));
}
