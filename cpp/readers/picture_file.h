// Picture files to RGB and back: the optional part, over zlib, libjpeg-turbo and libwebp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../src/pixels.h"

namespace janus {

// Any PNG, JPEG or WebP as Python's `open_image` gives it: first frame, RGB, alpha dropped and not blended, 16-bit grey by its high byte,
// turned upright as its EXIF says unless `keep_orientation`. Throws Error (JANUS_IMAGE) with Python's sentence where it is ours.
Rgb read_picture(const std::string &path, bool keep_orientation);
Rgb decode_picture(std::string_view data, const std::string &name, bool keep_orientation);

// An 8-bit RGB PNG with iTXt chunks of these (key, value) pairs.
std::string encode_png(const Rgb &picture, const std::vector<std::pair<std::string, std::string>> &texts);
// The same as a file, written beside and renamed, so that it is whole or absent. Throws Error (JANUS_ERROR) if `path` exists or cannot be
// written.
void write_png(const Rgb &picture, const std::string &path, const std::vector<std::pair<std::string, std::string>> &texts);

} // namespace janus
