// What types cannot say of a manifest: paths stay inside, every part is listed, sizes are possible, graphs are those of interface.h.
#pragma once

#include <array>
#include <string>

#include "manifest.h"

namespace janus {

// `lengths`: how many numbers image_input has for mean, std and background. Throws Error (JANUS_BUNDLE) in Python's words.
void check_manifest(const Manifest &manifest, const std::array<size_t, 3> &lengths, const std::string &where);

} // namespace janus
