// Rows of a PNG as they come out of its compressed data, to RGB.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "../src/pixels.h"

namespace janus {

// `colour` is PNG's number for it. `palette` is the content of PLTE, at most 256 colours.
struct PngHeader {
    uint32_t width = 0;
    uint32_t height = 0;
    unsigned depth = 0;
    unsigned colour = 0;
    bool interlaced = false;
    std::string_view palette;

    bool has_known_colours() const;
    unsigned bits_per_pixel() const;
};

// Fill `buffer` with `buffer_size` bytes and take the row, until there is none left.
class PngRows {
public:
    explicit PngRows(const PngHeader &header);
    // The filter's number and the row itself.
    uint8_t *buffer() { return row_.data(); }
    size_t buffer_size() const { return 1 + row_bytes_; }
    // Throws Damage if the filter is unknown.
    void take_row();
    bool finished() const { return y_ >= header_.height; }
    // Rows that were never taken are zeros as PNG stores them.
    Rgb picture() && { return std::move(picture_); }

private:
    void fill_table();
    void enter_pass();
    void undo_filter();
    void place_pixels();

    PngHeader header_;
    Rgb picture_;
    size_t pixel_bytes_;
    std::vector<uint8_t> row_, previous_;
    // What each value of a pixel of one channel means.
    std::array<std::array<uint8_t, 3>, 256> table_{};
    // Adam7's passes 0 to 6. A picture that is not interlaced is all pass 6 with every row.
    unsigned pass_ = 0;
    size_t row_bytes_ = 0;
    uint32_t row_pixels_ = 0;
    uint64_t y_ = 0;
};

} // namespace janus
