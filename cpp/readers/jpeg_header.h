// A JPEG file up to its first scan, as Pillow sees it before libjpeg does.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "stored_picture.h"

namespace janus {

// `pixels` is a whole file without comments and application segments, except JFIF's and Adobe's, which say what the channels are.
// `complete` says whether the file's end was there.
struct JpegParts {
    std::string pixels;
    std::string_view exif;
    bool complete;
};

struct JpegHeader {
    uint32_t width = 0;
    uint32_t height = 0;
    int channels = 0;
    // Of segments that stand behind damage, where `split_jpeg` does not look.
    std::string exif;
};

JpegParts split_jpeg(std::string_view file);
// Throws Damage where Pillow refuses the file.
JpegHeader read_jpeg_header(std::string_view pixels);
// As the first frame header states it, wherever it stands.
std::optional<StatedSize> find_jpeg_size(std::string_view pixels);

} // namespace janus
