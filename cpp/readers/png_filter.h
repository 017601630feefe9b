// PNG's fourth row filter, which reader and writer share.
#pragma once

#include <cstdlib>

namespace janus {

// Of left, up and upper left the nearest to left + up - upper left.
inline int predict(int left, int up, int upper_left) {
    const int to_left = std::abs(up - upper_left), to_up = std::abs(left - upper_left);
    const int to_upper_left = std::abs(left + up - 2 * upper_left);
    if (to_left <= to_up && to_left <= to_upper_left) return left;
    return to_up <= to_upper_left ? up : upper_left;
}

} // namespace janus
