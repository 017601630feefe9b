// What the readers of single formats take and give, and how they refuse a file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "../src/pixels.h"

namespace janus {

// A picture's file. `name` is what messages call it, `format` Pillow's word for it.
struct Source {
    std::string_view data;
    std::string name;
    const char *format;
};

// A picture as its file stores it, not turned, and its EXIF block.
struct StoredPicture {
    Rgb rgb;
    std::string exif;
};

// Thrown inside a reader, which turns it into an Error: why the pixels cannot be read, in a few words or none.
struct Damage {
    std::string reason;
};

using StatedSize = std::pair<uint32_t, uint32_t>;

// Throws Error if there are more than MAX_PIXELS. To be called before memory for the pixels is allocated.
void check_size(const Source &source, uint32_t width, uint32_t height);
// Throws Error. `complete` says whether the file's end is there, `size` what its header states.
[[noreturn]] void refuse_damaged(const Source &source, bool complete, std::optional<StatedSize> size, const std::string &reason);

StoredPicture read_png(const Source &source);
StoredPicture read_jpeg(const Source &source);
StoredPicture read_webp(const Source &source);

} // namespace janus
