#include "png_rows.h"

#include <algorithm>
#include <climits>
#include <utility>

#include "png_filter.h"
#include "stored_picture.h"

namespace janus {
namespace {

constexpr unsigned GREY = 0, COLOUR = 2, PALETTE = 3, GREY_ALPHA = 4, COLOUR_ALPHA = 6;

struct Pass {
    uint32_t first_column, first_row, column_step, row_step;
};
constexpr Pass PASSES[] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
constexpr unsigned NUM_PASSES = 7;
constexpr Pass ALL_ROWS{0, 0, 1, 1};

// Adds to each byte of a row what `expect` makes of the bytes to the left, above, and above that one.
template <typename Expect> void add_expected(uint8_t *row, const uint8_t *above, size_t size, size_t pixel_bytes, Expect expect) {
    for (size_t i = 0; i < size; ++i) {
        const int left = i < pixel_bytes ? 0 : row[i - pixel_bytes], upper_left = i < pixel_bytes ? 0 : above[i - pixel_bytes];
        row[i] = static_cast<uint8_t>(row[i] + expect(left, int{above[i]}, upper_left));
    }
}

} // namespace

bool PngHeader::has_known_colours() const {
    switch (colour) {
    case GREY: return depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
    case PALETTE: return depth == 1 || depth == 2 || depth == 4 || depth == 8;
    case COLOUR:
    case GREY_ALPHA:
    case COLOUR_ALPHA: return depth == 8 || depth == 16;
    default: return false;
    }
}

unsigned PngHeader::bits_per_pixel() const {
    switch (colour) {
    case COLOUR: return 3 * depth;
    case GREY_ALPHA: return 2 * depth;
    case COLOUR_ALPHA: return 4 * depth;
    default: return depth;
    }
}

PngRows::PngRows(const PngHeader &header) : header_(header), pixel_bytes_((header.bits_per_pixel() + 7) / 8) {
    const unsigned bits = header.bits_per_pixel();
    // Pillow's limit.
    if (header.width > INT_MAX / bits - 7) throw Damage{"its rows are too long"};
    row_.resize(1 + (size_t{header.width} * bits + 7) / 8);
    previous_.resize(row_.size());
    picture_ = {header.width, header.height, std::vector<uint8_t>(size_t{3} * header.width * header.height)};
    fill_table();
    enter_pass();
}

void PngRows::fill_table() {
    if (header_.colour == PALETTE) {
        // Colours that the palette lacks are black.
        for (size_t i = 0; i + 2 < header_.palette.size(); i += 3) std::copy_n(header_.palette.data() + i, 3, table_[i / 3].begin());
        for (size_t i = 0; i < picture_.bytes.size(); i += 3) std::copy_n(table_[0].begin(), 3, picture_.bytes.data() + i);
    } else if (header_.colour == GREY && header_.depth <= 8) {
        const unsigned white = (1U << header_.depth) - 1;
        for (unsigned value = 0; value <= white; ++value) table_[value].fill(static_cast<uint8_t>(value * (255 / white)));
    }
}

void PngRows::enter_pass() {
    const Pass &pass = header_.interlaced ? PASSES[pass_] : ALL_ROWS;
    y_ = pass.first_row;
    const uint32_t columns = std::max(header_.width, pass.first_column) - pass.first_column;
    row_pixels_ = columns / pass.column_step + (columns % pass.column_step != 0);
    row_bytes_ = (size_t{row_pixels_} * header_.bits_per_pixel() + 7) / 8;
    std::fill(previous_.begin(), previous_.end(), uint8_t{0});
}

void PngRows::take_row() {
    undo_filter();
    place_pixels();
    std::swap(row_, previous_);
    y_ += header_.interlaced ? PASSES[pass_].row_step : 1;
    while (header_.interlaced && (finished() || row_pixels_ == 0) && pass_ + 1 < NUM_PASSES) {
        ++pass_;
        enter_pass();
    }
}

void PngRows::undo_filter() {
    uint8_t *row = row_.data() + 1;
    const uint8_t *above = previous_.data() + 1;
    switch (row_[0]) {
    case 0: return;
    case 1: return add_expected(row, above, row_bytes_, pixel_bytes_, [](int left, int, int) { return left; });
    case 2: return add_expected(row, above, row_bytes_, pixel_bytes_, [](int, int up, int) { return up; });
    case 3: return add_expected(row, above, row_bytes_, pixel_bytes_, [](int left, int up, int) { return (left + up) / 2; });
    case 4: return add_expected(row, above, row_bytes_, pixel_bytes_, predict);
    default: throw Damage{"unknown row filter"};
    }
}

void PngRows::place_pixels() {
    const Pass &pass = header_.interlaced ? PASSES[pass_] : ALL_ROWS;
    const uint8_t *row = row_.data() + 1;
    uint8_t *out = picture_.bytes.data() + 3 * (static_cast<size_t>(y_) * header_.width + pass.first_column);
    const size_t step = size_t{3} * pass.column_step;
    const unsigned depth = header_.depth;
    if (depth <= 8 && (header_.colour == GREY || header_.colour == PALETTE)) {
        const unsigned mask = (1U << depth) - 1;
        for (size_t i = 0; i < row_pixels_; ++i, out += step) {
            const size_t bit = i * depth;
            std::copy_n(table_[row[bit / 8] >> (8 - depth - bit % 8) & mask].begin(), 3, out);
        }
        return;
    }
    // Of 16 bits the high byte, which comes first.
    const size_t sample = header_.colour == COLOUR || header_.colour == COLOUR_ALPHA ? depth / 8 : 0;
    for (size_t i = 0; i < row_pixels_; ++i, out += step, row += pixel_bytes_) {
        out[0] = row[0];
        out[1] = row[sample];
        out[2] = row[2 * sample];
    }
}

} // namespace janus
