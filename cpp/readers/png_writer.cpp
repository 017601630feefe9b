#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <new>

#include "../src/error.h"
#include "../src/utf8.h"
#include "byte_order.h"
#include "picture_file.h"
#include "png_filter.h"
#include "whole_file.h"

namespace janus {
namespace {

using namespace std::string_literals;

constexpr size_t MAX_KEY_BYTES = 79;
constexpr int LEVEL = 6;

std::string make_chunk(const std::string &name, std::string_view data) {
    if (data.size() > INT32_MAX) throw Error(JANUS_VALUE, "a part of a PNG may have 2,147,483,647 bytes, got more");
    std::string chunk = name;
    chunk += data;
    const auto checksum = crc32_z(0, reinterpret_cast<const Bytef *>(chunk.data()), chunk.size());
    return big_bytes(static_cast<uint32_t>(data.size())) + chunk + big_bytes(static_cast<uint32_t>(checksum));
}

std::string make_header(const Rgb &picture) {
    // 8 bits, colour, and the only compression, filter method and order of rows that we write.
    return make_chunk("IHDR", big_bytes(picture.width) + big_bytes(picture.height) + "\x08\x02\0\0\0"s);
}

// Not compressed, no language, no translated key.
std::string make_text(const std::string &key, const std::string &value) {
    const bool printable = std::all_of(key.begin(), key.end(), [](char c) { return c >= ' ' && c <= '~'; });
    if (key.empty() || key.size() > MAX_KEY_BYTES || !printable || key.front() == ' ' || key.back() == ' ') {
        const std::string expected = "expected 1 to 79 printable ASCII characters, no space at an end";
        throw Error(JANUS_VALUE, "got the key '" + key + "' for a PNG's text; " + expected);
    }
    if (!is_utf8(value)) throw Error(JANUS_VALUE, "the PNG's text '" + key + "' is not UTF-8");
    return make_chunk("iTXt", key + "\0\0\0\0\0"s + value);
}

// Each row after the number of its filter: 4, which does best on photos and drawings of our models.
std::vector<uint8_t> filter_rows(const Rgb &picture) {
    const size_t size = size_t{3} * picture.width;
    std::vector<uint8_t> filtered;
    filtered.reserve((size + 1) * picture.height);
    const std::vector<uint8_t> nothing(size);
    const uint8_t *above = nothing.data();
    for (size_t y = 0; y < picture.height; ++y) {
        const uint8_t *row = picture.bytes.data() + y * size;
        filtered.push_back(4);
        for (size_t i = 0; i < size; ++i) {
            const int expected = i < 3 ? above[i] : predict(row[i - 3], above[i], above[i - 3]);
            filtered.push_back(static_cast<uint8_t>(row[i] - expected));
        }
        above = row;
    }
    return filtered;
}

std::string make_pixels(const Rgb &picture) {
    const std::vector<uint8_t> rows = filter_rows(picture);
    uLongf size = compressBound(static_cast<uLong>(rows.size()));
    std::string compressed(size, '\0');
    auto *out = reinterpret_cast<Bytef *>(compressed.data());
    if (compress2(out, &size, rows.data(), static_cast<uLong>(rows.size()), LEVEL) != Z_OK) throw std::bad_alloc();
    compressed.resize(size);
    return make_chunk("IDAT", compressed);
}

} // namespace

std::string encode_png(const Rgb &picture, const std::vector<std::pair<std::string, std::string>> &texts) {
    if (picture.width == 0 || picture.height == 0) throw Error(JANUS_VALUE, "a picture without pixels cannot be written");
    std::string file = "\x89PNG\r\n\x1a\n" + make_header(picture);
    for (const auto &[key, value] : texts) file += make_text(key, value);
    return file + make_pixels(picture) + make_chunk("IEND", "");
}

void write_png(const Rgb &picture, const std::string &path, const std::vector<std::pair<std::string, std::string>> &texts) {
    write_new_file(path, encode_png(picture, texts));
}

} // namespace janus
