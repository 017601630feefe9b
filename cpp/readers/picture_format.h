// What a file is, by how it begins.
#pragma once

#include <string>
#include <string_view>

#include "stored_picture.h"

namespace janus {

// This much of a file's beginning decides.
constexpr size_t HEAD_BYTES = 4096;

struct PictureFormat {
    const char *name;
    StoredPicture (*read)(const Source &source);
};

// Throws Error, which says what the file is instead, if it is none of the formats that are read. `name` is what messages call it.
PictureFormat recognise(std::string_view head, const std::string &name);

} // namespace janus
