#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

#include "error.h"
#include "picture_file.h"
#include "picture_samples.h"
#include "png_bytes.h"

namespace {

using namespace std::string_literals;
using janus::Rgb;
using samples::chunk;
using samples::png;
using samples::PngKind;

using Bytes = std::vector<uint8_t>;

Rgb decode(const std::string &data) { return janus::decode_picture(data, "it", false); }

std::string refusal(const std::string &data) {
    try {
        decode(data);
    } catch (const janus::Error &error) {
        CHECK(error.status == JANUS_IMAGE);
        return error.message;
    }
    return "";
}

// Adam7's.
struct Pass {
    uint32_t x, y, step_x, step_y;
};
const Pass PASSES[] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};

// Each row with the next of PNG's five filters, over the pixels `first`, `first + step` and so on of both directions.
std::string filtered_rows(const Rgb &picture, uint32_t first_x = 0, uint32_t first_y = 0, uint32_t step_x = 1, uint32_t step_y = 1) {
    std::string rows, above;
    int filter = 0;
    for (uint32_t y = first_y; y < picture.height; y += step_y, filter = (filter + 1) % 5) {
        std::string row;
        for (uint32_t x = first_x; x < picture.width; x += step_x) {
            row.append(reinterpret_cast<const char *>(&picture.bytes[3 * (y * picture.width + x)]), 3);
        }
        if (row.empty()) return "";
        above.resize(row.size());
        rows += static_cast<char>(filter);
        for (size_t i = 0; i < row.size(); ++i) {
            const int left = i < 3 ? 0 : static_cast<uint8_t>(row[i - 3]), up = static_cast<uint8_t>(above[i]);
            const int corner = i < 3 ? 0 : static_cast<uint8_t>(above[i - 3]), guess = left + up - corner;
            const int to_left = std::abs(guess - left), to_up = std::abs(guess - up), to_corner = std::abs(guess - corner);
            const int nearest = to_left <= to_up && to_left <= to_corner ? left : (to_up <= to_corner ? up : corner);
            const int expected[] = {0, left, up, (left + up) / 2, nearest};
            rows += static_cast<char>(row[i] - expected[filter]);
        }
        above = row;
    }
    return rows;
}

} // namespace

TEST_CASE("every colour type and depth of a PNG") {
    const std::string palette = chunk("PLTE", "\x01\x02\x03\x04\x05\x06"s), transparent = palette + chunk("tRNS", "\0\x80"s);
    struct {
        PngKind kind;
        std::string row;
        Bytes expected;
        std::string before;
    } const cases[] = {
        {{2, 1, 1, 0}, "\x40"s, {0, 0, 0, 255, 255, 255}, ""},
        {{2, 1, 2, 0}, "\x60"s, {85, 85, 85, 170, 170, 170}, ""},
        {{2, 1, 4, 0}, "\x1E"s, {17, 17, 17, 238, 238, 238}, ""},
        {{2, 1, 8, 0}, "\x07\xC8"s, {7, 7, 7, 200, 200, 200}, chunk("tRNS", "\0\x07"s)},
        {{2, 1, 16, 0}, "\x07\xFF\xC8\x01"s, {7, 7, 7, 200, 200, 200}, ""},
        {{2, 1, 8, 2}, "\x01\x02\x03\xFD\xFE\xFF"s, {1, 2, 3, 253, 254, 255}, ""},
        {{2, 1, 16, 2}, "\x01\xFF\x02\xFF\x03\xFF\xFD\0\xFE\0\xFF\0"s, {1, 2, 3, 253, 254, 255}, ""},
        {{2, 1, 1, 3}, "\x40"s, {1, 2, 3, 4, 5, 6}, transparent},
        {{2, 1, 2, 3}, "\x10"s, {1, 2, 3, 4, 5, 6}, palette},
        {{2, 1, 4, 3}, "\x1F"s, {4, 5, 6, 0, 0, 0}, palette},
        {{2, 1, 8, 3}, "\x01\xFF"s, {4, 5, 6, 0, 0, 0}, transparent},
        {{2, 1, 8, 3}, "\x01\x00"s, {0, 0, 0, 0, 0, 0}, ""},
        {{2, 1, 8, 4}, "\x07\0\xC8\xFF"s, {7, 7, 7, 200, 200, 200}, ""},
        {{2, 1, 16, 4}, "\x07\xFF\0\0\xC8\0\xFF\xFF"s, {7, 7, 7, 200, 200, 200}, ""},
        {{2, 1, 8, 6}, "\x01\x02\x03\0\xFD\xFE\xFF\x80"s, {1, 2, 3, 253, 254, 255}, ""},
        {{2, 1, 16, 6}, "\x01\0\x02\0\x03\0\0\0\xFD\0\xFE\0\xFF\0\0\0"s, {1, 2, 3, 253, 254, 255}, ""},
    };
    for (const auto &[kind, row, expected, before] : cases) {
        CAPTURE(kind.depth);
        CAPTURE(kind.colour);
        CHECK(decode(png(kind, "\0"s + row, before)).bytes == expected);
        // Interlaced, the two pixels are rows of the first and of the sixth pass.
        const size_t bits = 8 * row.size() / 2;
        const std::string second = bits < 8 ? std::string(1, static_cast<char>(row[0] << kind.depth)) : row.substr(row.size() / 2);
        const std::string first = bits < 8 ? row : row.substr(0, row.size() / 2);
        CHECK(decode(png({2, 1, kind.depth, kind.colour, 1}, "\0"s + first + "\0"s + second, before)).bytes == expected);
    }
    for (int depth : {0, 2, 3, 32}) CHECK(refusal(png({1, 1, depth, 6}, "\0\0\0\0\0"s)).find("PNG data is damaged") != std::string::npos);
}

TEST_CASE("filters and passes of a PNG") {
    for (uint32_t width = 1; width < 20; width += 3) {
        for (uint32_t height = 1; height < 20; height += 2) {
            const Rgb picture = samples::noise(width, height);
            CHECK(decode(png({width, height}, filtered_rows(picture))).bytes == picture.bytes);
            std::string passes;
            for (const auto &[x, y, step_x, step_y] : PASSES) passes += filtered_rows(picture, x, y, step_x, step_y);
            CHECK(decode(png({width, height, 8, 2, 1}, passes)).bytes == picture.bytes);
        }
    }
    const std::string damaged = "it cannot be read as an image: its PNG data is damaged";
    CHECK(refusal(png({1, 1}, "\5\1\2\3"s)) == damaged + " (unknown row filter); copy or download it again");
}

TEST_CASE("what stands in a PNG beside its pixels does not count") {
    const Rgb picture = samples::noise(5, 4);
    const std::string rows = filtered_rows(picture), plain = png({5, 4}, rows);
    const std::string oddities[] = {chunk("pHYs", "\0"s),      chunk("iCCP", "no profile"), chunk("eXIf", "II*\0\xFF\xFF\xFF\xFF"s),
                                    chunk("vpAg", "12345678"), chunk("acTL", ""),           "\0\0\0\1tEXt?wron"s};
    for (const std::string &odd : oddities) {
        CHECK(decode(png({5, 4}, rows, odd)).bytes == picture.bytes);
        CHECK(decode(png({5, 4}, rows, "", odd)).bytes == picture.bytes);
    }
    // Pillow does not look at the checksum of pixels, and needs nothing behind the last of them.
    const size_t end = plain.size() - samples::END.size();
    std::string damaged = plain;
    damaged[end - 1] ^= 1;
    CHECK(decode(damaged).bytes == picture.bytes);
    CHECK(decode(plain.substr(0, end)).bytes == picture.bytes);
}

TEST_CASE("pixels in many pieces, with more or less than they should have") {
    const Rgb picture = samples::noise(5, 4);
    const std::string rows = filtered_rows(picture), data = samples::deflated(rows), front = samples::SIGNATURE + samples::header({5, 4});
    std::string pieces;
    for (char byte : data) pieces += chunk("IDAT", std::string(1, byte)) + chunk("IDAT", "");
    CHECK(decode(front + pieces + samples::END).bytes == picture.bytes);
    CHECK(decode(png({5, 4}, rows + "more")).bytes == picture.bytes);
    Bytes half = picture.bytes;
    std::fill(half.begin() + 2 * 15, half.end(), uint8_t{0});
    CHECK(decode(png({5, 4}, rows.substr(0, 2 * 16))).bytes == half);
    CHECK(refusal(png({5, 4}, rows.substr(0, 2 * 16 + 1))).find("(rows are missing)") != std::string::npos);
}

TEST_CASE("the start of a PNG is refused as cut off until all of its pixels are there") {
    const std::string whole = png({5, 4}, filtered_rows(samples::noise(5, 4)));
    const size_t needed = whole.size() - samples::END.size() - 4 - 4; // Neither the chunk's checksum nor the data's.
    for (size_t size = 4; size < needed; ++size) {
        CAPTURE(size);
        const std::string cut_off = "it is a PNG that is cut off after " + std::to_string(size) + " bytes; copy or download it again";
        CHECK(refusal(whole.substr(0, size)) == cut_off);
    }
}

TEST_CASE("a PNG that is refused by its header, before memory is allocated") {
    CHECK(refusal(png({9000, 9000}, "")) == "it has 9000x9000 pixels, more than 80,000,000; scale it down first");
    CHECK(refusal(png({0xFFFFFFFF, 0xFFFFFFFF}, "")) == "it has 4294967295x4294967295 pixels, more than 80,000,000; scale it down first");
    CHECK(refusal(png({0, 10}, "")) == "it is empty: a PNG of 0x10 pixels");
    const std::string front = samples::SIGNATURE + samples::header({5, 4});
    CHECK(refusal(front + samples::END).find("(there are no pixels)") != std::string::npos);
    std::string damaged = front + samples::END;
    damaged[30] ^= 1;
    CHECK(refusal(damaged).find("(wrong checksum of IHDR)") != std::string::npos);
    CHECK(refusal(png({1, 1, 8, 3}, "\0\0"s, chunk("PLTE", std::string(771, 'x')))).find("(its palette is too long)") != std::string::npos);
}
