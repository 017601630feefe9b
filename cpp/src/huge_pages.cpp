#include "huge_pages.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <sys/mman.h>

namespace janus {
namespace {

constexpr int COLLAPSE = 25; // MADV_COLLAPSE, since Linux 6.1, which older headers do not name
constexpr uintptr_t PAGE = 2u << 20;
// Of what came while a graph was opened: smaller pieces are its bookkeeping.
constexpr uintptr_t SMALLEST = 4 * PAGE;

} // namespace

Ranges anonymous_ranges() {
    Ranges ranges;
    const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen("/proc/self/maps", "re"), std::fclose);
    char line[512];
    while (file && std::fgets(line, sizeof line, file.get())) {
        unsigned long start = 0, end = 0, inode = 0;
        char access[5] = "", name[8] = "";
        const int found = std::sscanf(line, "%lx-%lx %4s %*s %*s %lu %7s", &start, &end, access, &inode, name);
        if (found < 4 || std::strcmp(access, "rw-p") != 0 || inode != 0) continue;
        if (found == 4 || std::strcmp(name, "[heap]") == 0) ranges.emplace_back(start, end);
    }
    return ranges;
}

Ranges subtract(const Ranges &ranges, const Ranges &others) {
    Ranges left;
    for (auto [start, end] : ranges) {
        for (const auto &[taken_from, taken_to] : others) {
            if (taken_to <= start || taken_from >= end) continue;
            if (taken_from > start) left.emplace_back(start, taken_from);
            start = taken_to < end ? taken_to : end;
        }
        if (start < end) left.emplace_back(start, end);
    }
    return left;
}

void collapse_since(const Ranges &before) {
    if (before.empty()) return; // the system did not tell
    for (const auto &[start, end] : subtract(anonymous_ranges(), before)) {
        const uintptr_t first = (start + PAGE - 1) / PAGE * PAGE, last = end / PAGE * PAGE;
        if (last < first + SMALLEST) continue;
        // EINVAL: this system never will. Out of large pages it moves what it can.
        if (madvise(reinterpret_cast<void *>(first), last - first, COLLAPSE) != 0 && errno == EINVAL) return;
    }
}

} // namespace janus
