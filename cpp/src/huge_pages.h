// Weights in pages of 2 MB: the counterpart of janus_runtime/backends/huge_pages.py, which says why.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace janus {

using Ranges = std::vector<std::pair<uintptr_t, uintptr_t>>;

// This process's private writable memory that is no file's, in order; empty where the system does not tell.
Ranges anonymous_ranges();
// What is in `ranges` and not in `others`, both in order and without overlaps.
Ranges subtract(const Ranges &ranges, const Ranges &others);
// Moves what was allocated since `before`, an earlier answer of `anonymous_ranges`, into large pages, as far as the system has some.
void collapse_since(const Ranges &before);

} // namespace janus
