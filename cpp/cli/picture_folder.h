// Pictures on disk: numbered names, parameters inside the PNG, nothing overwritten. As janus-rt writes them.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "pixels.h"

namespace cli {

using Texts = std::vector<std::pair<std::string, std::string>>;

class PictureFolder {
public:
    // Throws janus::Error if the folder cannot be made or written to: now, not after minutes of drawing.
    explicit PictureFolder(const std::string &folder);
    // Writes `NNN-<name>.png` -> its path. NNN goes on from the highest number there.
    std::string write(const janus::Rgb &picture, const std::string &name, const Texts &texts);

private:
    std::filesystem::path folder_;
};

// Lower-case letters and digits of any script, the rest as single dashes, at most `length` bytes.
std::string make_slug(const std::string &text, size_t length = 40);
// Equal-sized pictures in rows of about as many columns as rows, on black with 2-pixel gaps.
janus::Rgb make_grid(const std::vector<janus::Rgb> &pictures);

} // namespace cli
