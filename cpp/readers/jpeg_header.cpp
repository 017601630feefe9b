#include "jpeg_header.h"

#include <algorithm>

#include "byte_order.h"

namespace janus {
namespace {

using namespace std::string_view_literals;

constexpr uint32_t START_OF_SCAN = 0xDA, QUANTISATION = 0xDB, APP0 = 0xE0, APP1 = 0xE1, APP14 = 0xEE, APP15 = 0xEF, COMMENT = 0xFE;
constexpr auto EXIF = "Exif\0\0"sv;

bool is_metadata(uint32_t marker) { return (marker >= APP0 && marker <= APP15) || marker == COMMENT; }

// Shorter ones are no JFIF and Adobe segments to the decoder either.
bool states_channels(uint32_t marker, std::string_view segment) {
    return (marker == APP0 && starts_with(segment, "JFIF\0"sv) && segment.size() >= 14) ||
           (marker == APP14 && starts_with(segment, "Adobe"sv) && segment.size() >= 12);
}

bool is_frame(uint32_t marker) { return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC; }

// Restarts, the file's beginning and end, and reserved ones.
bool has_no_segment(uint32_t marker) { return marker == 0xC8 || (marker >= 0xD0 && marker <= 0xD9) || (marker >= 0xF0 && marker <= 0xFD); }

void check_quantisation(std::string_view segment) {
    while (!segment.empty()) {
        const size_t size = static_cast<uint8_t>(segment[0]) < 0x10 ? 1 + 64 : 1 + 2 * 64;
        if (segment.size() < size) throw Damage{"bad quantization table"};
        segment.remove_prefix(size);
    }
}

class HeaderReader {
public:
    explicit HeaderReader(std::string_view pixels) : rest_(pixels.substr(2)) {}

    JpegHeader read() {
        while (true) {
            const uint32_t marker = next_marker();
            if (!has_no_segment(marker)) take_segment(marker);
            if (marker == START_OF_SCAN) break;
        }
        if (header_.channels == 0) throw Damage{"there is no frame header before the scan"};
        if (header_.width == 0 || header_.height == 0) throw Damage{};
        return header_;
    }

private:
    std::string_view take(size_t size) {
        if (rest_.size() < size) throw Damage{"its header is cut off"};
        const std::string_view bytes = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return bytes;
    }

    // Passes over bytes that belong to no marker, and over 0xFF 0x00, which is none.
    uint32_t next_marker() {
        while (true) {
            while (take(1)[0] != '\xFF') {
            }
            uint32_t marker = 0xFF;
            while (marker == 0xFF) marker = read_big(take(1), 0, 1);
            if (marker >= 0xC0) return marker;
            if (marker != 0) throw Damage{"no marker found"};
        }
    }

    void take_segment(uint32_t marker) {
        const uint32_t size = read_big(take(2), 0, 2);
        const std::string_view segment = take(std::max(size, 2U) - 2);
        if (is_frame(marker) || marker == 0xDE) take_frame(segment);
        if (marker == QUANTISATION) check_quantisation(segment);
        if (marker == APP1 && starts_with(segment, EXIF)) header_.exif += segment.substr(header_.exif.empty() ? 0 : EXIF.size());
    }

    void take_frame(std::string_view segment) {
        constexpr size_t fixed = 6;
        if (segment.size() < fixed || (segment.size() - fixed) % 3 != 0) throw Damage{"bad frame header"};
        if (segment[0] != 8) throw Damage{"its samples do not have 8 bits"};
        header_.height = read_big(segment, 1, 2);
        header_.width = read_big(segment, 3, 2);
        header_.channels = static_cast<uint8_t>(segment[5]);
        if (header_.channels != 1 && header_.channels != 3 && header_.channels != 4) throw Damage{"expected 1, 3 or 4 channels"};
    }

    std::string_view rest_;
    JpegHeader header_;
};

} // namespace

JpegParts split_jpeg(std::string_view file) {
    JpegParts parts{std::string(file.substr(0, 2)), {}, false};
    uint64_t at = 2;
    while (at + 4 <= file.size() && file[at] == '\xFF') {
        const uint32_t marker = read_big(file, at + 1, 1);
        if (marker == 0xFF) { // Padding.
            ++at;
            continue;
        }
        // The scan begins, or the header is damaged.
        if (marker < 0xC0 || (marker >= 0xD0 && marker <= START_OF_SCAN)) break;
        const uint64_t end = at + 2 + read_big(file, at + 2, 2);
        const std::string_view segment = slice(file, at + 4, end);
        if (marker == APP1 && starts_with(segment, EXIF)) {
            if (parts.exif.empty()) parts.exif = segment;
        } else if (!is_metadata(marker) || states_channels(marker, segment)) {
            parts.pixels += slice(file, at, end);
        }
        at = end;
    }
    const std::string_view rest = slice(file, at, file.size());
    parts.pixels += rest;
    parts.complete = rest.find("\xFF\xD9"sv) != rest.npos;
    return parts;
}

JpegHeader read_jpeg_header(std::string_view pixels) {
    if (!starts_with(pixels, "\xFF\xD8\xFF"sv)) throw Damage{};
    return HeaderReader(pixels).read();
}

std::optional<StatedSize> find_jpeg_size(std::string_view pixels) {
    constexpr size_t needed = 9;
    for (size_t at = pixels.find('\xFF'); at != pixels.npos && at + needed <= pixels.size(); at = pixels.find('\xFF', at + 1)) {
        const bool found = is_frame(read_big(pixels, at + 1, 1)) && pixels[at + 4] == 8;
        if (found) return StatedSize{read_big(pixels, at + 7, 2), read_big(pixels, at + 5, 2)};
    }
    return std::nullopt;
}

} // namespace janus
