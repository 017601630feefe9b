#include "exif.h"

#include <algorithm>
#include <utility>

#include "byte_order.h"

namespace janus {
namespace {

using namespace std::string_view_literals;

// TIFF's: a directory entry is a tag, a type, a count and a value, which stands at the front of its four bytes.
constexpr uint32_t ORIENTATION = 274;
constexpr size_t ENTRY_BYTES = 12;

size_t size_of_type(uint32_t type) {
    switch (type) {
    case 1: return 1;
    case 3: return 2;
    case 4: return 4;
    default: return 0;
    }
}

bool begins_like_tiff(std::string_view data) {
    return data.size() >= 8 &&
           (starts_with(data, "II*\0"sv) || starts_with(data, "MM\0*"sv) || starts_with(data, "II\0*"sv) || starts_with(data, "MM*\0"sv));
}

} // namespace

int read_orientation(std::string_view exif) {
    while (starts_with(exif, "Exif\0\0"sv)) exif.remove_prefix(6);
    if (!begins_like_tiff(exif)) return 1;
    const auto read = exif[0] == 'I' ? read_little : read_big;
    const uint64_t start = read(exif, 4, 4);
    if (start + 2 > exif.size()) return 1;
    const uint64_t end = start + 2 + ENTRY_BYTES * read(exif, static_cast<size_t>(start), 2);
    for (uint64_t place = start + 2; place < end && place + ENTRY_BYTES <= exif.size(); place += ENTRY_BYTES) {
        const auto at = static_cast<size_t>(place);
        if (read(exif, at, 2) != ORIENTATION) continue;
        const size_t size = size_of_type(read(exif, at + 2, 2));
        const uint32_t value = size == 0 ? 0 : read(exif, at + 8, size);
        return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
    return 1;
}

Rgb turn_upright(Rgb picture, int orientation) {
    if (orientation == 1) return picture;
    const size_t width = picture.width, height = picture.height;
    // From 5 on rows become columns. Then, or else at once, the stored rows may run upwards and the stored columns to the left.
    const bool swapped = orientation >= 5;
    const bool upwards = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const bool leftwards = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    Rgb turned{picture.width, picture.height, std::vector<uint8_t>(picture.bytes.size())};
    if (swapped) std::swap(turned.width, turned.height);
    uint8_t *out = turned.bytes.data();
    for (size_t y = 0; y < turned.height; ++y) {
        for (size_t x = 0; x < turned.width; ++x, out += 3) {
            const size_t row = swapped ? x : y, column = swapped ? y : x;
            const size_t stored = (upwards ? height - 1 - row : row) * width + (leftwards ? width - 1 - column : column);
            std::copy_n(picture.bytes.data() + 3 * stored, 3, out);
        }
    }
    return turned;
}

} // namespace janus
