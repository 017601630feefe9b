#include <doctest/doctest.h>

#include <string>

#include "utf8.h"

using janus::is_utf8;
using janus::replace_invalid;
using janus::strip;

namespace {

const std::string BAD = "\xEF\xBF\xBD";

std::string bad(int times) {
    std::string text;
    for (int i = 0; i < times; ++i) text += BAD;
    return text;
}

} // namespace

TEST_CASE("UTF-8 is told from what only looks like it") {
    for (const char *good : {"", "a", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80", "\xEF\xBF\xBF",
                             "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
        CAPTURE(good);
        CHECK(is_utf8(good));
        CHECK(replace_invalid(good) == good);
    }
    CHECK(is_utf8(std::string("a\0b", 3)));
    for (const char *wrong : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xC2\x41", "\xE0\x9F\xBF", "\xE2\x82", "\xED\xA0\x80",
                              "\xED\xBF\xBF", "\xF0\x8F\xBF\xBF", "\xF0\x9F\x98", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
        CAPTURE(wrong);
        CHECK_FALSE(is_utf8(wrong));
        CHECK_FALSE(is_utf8(std::string("a") + wrong + "b"));
    }
}

// The examples of Unicode 16, tables 3-8 to 3-11.
TEST_CASE("the longest start of a character is replaced at once") {
    CHECK(replace_invalid("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") == bad(8) + "A");
    CHECK(replace_invalid("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") == bad(8) + "A");
    CHECK(replace_invalid("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") == bad(5) + "A" + bad(2) + "B");
    CHECK(replace_invalid("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == bad(4) + "A");
    CHECK(replace_invalid("\xE2\x82") == bad(1));
    CHECK(replace_invalid("\xF0\x9F\x98\xF0\x9F\x98\x80") == bad(1) + "\xF0\x9F\x98\x80");
}

TEST_CASE("strip takes what Python's does") {
    CHECK(strip("") == "");
    CHECK(strip(" \t\n\v\f\r\x1C\x1D\x1E\x1F ") == "");
    CHECK(strip(" a b ") == "a b");
    CHECK(strip(u8"\u0085\u00A0\u1680\u2000\u2005\u200A\u2028\u2029\u202F\u205F\u3000é\u3000\u2029") == u8"é");
    // No white space: zero-width space, joiner and no-break space, Mongolian vowel separator, backspace, unit of the C1 controls.
    for (const char *kept : {u8"\u200B", u8"\u200D", u8"\uFEFF", u8"\u180E", "\b", u8"\u0084", u8"\u2060"}) CHECK(strip(kept) == kept);
    CHECK(strip(u8" 😀 ") == u8"😀");
}
