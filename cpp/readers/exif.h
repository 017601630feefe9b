// EXIF's orientation, and how a picture is turned by it.
#pragma once

#include <string_view>

#include "../src/pixels.h"

namespace janus {

// EXIF's number, 1 to 8. 1, as stored, if the block is damaged or does not say.
int read_orientation(std::string_view exif);
// A picture as stored to one that stands upright.
Rgb turn_upright(Rgb picture, int orientation);

} // namespace janus
