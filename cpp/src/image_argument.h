// A janus_image of the interface as the core's picture.
#pragma once

#include "janus/janus.h"
#include "pixels.h"

namespace janus {

// Throws Error (JANUS_IMAGE, JANUS_VALUE).
Rgb read_image(const janus_image *image);

} // namespace janus
