// The chunks of a PNG file.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace janus {

// A file that is cut off may end anywhere in the last one's data or checksum.
struct PngChunk {
    std::string_view name;
    uint32_t stated_size;
    std::string_view data;
    std::string_view checksum;

    bool is_whole() const { return data.size() == stated_size; }
    bool is_critical() const { return name[0] >= 'A' && name[0] <= 'Z'; }
    bool has_right_checksum() const;
};

// Goes through the chunks of a file that begins with PNG's eight bytes, up to IEND.
class PngChunks {
public:
    explicit PngChunks(std::string_view file) : file_(file) {}
    std::optional<PngChunk> next();
    // Pixels depend on these alone, whose names begin with a capital.
    std::optional<PngChunk> next_critical();

private:
    std::string_view file_;
    uint64_t at_ = 8;
};

} // namespace janus
