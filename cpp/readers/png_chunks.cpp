#include "png_chunks.h"

#include <zlib.h>

#include "byte_order.h"

namespace janus {
bool PngChunk::has_right_checksum() const {
    // The data follows the name, and both count.
    const auto *bytes = reinterpret_cast<const Bytef *>(name.data());
    return checksum.size() == 4 && crc32_z(0, bytes, name.size() + data.size()) == read_big(checksum, 0, 4);
}

std::optional<PngChunk> PngChunks::next() {
    if (at_ + 8 > file_.size()) return std::nullopt;
    const uint32_t size = read_big(file_, static_cast<size_t>(at_), 4);
    const uint64_t begin = at_ + 8, end = begin + size;
    const PngChunk chunk{slice(file_, at_ + 4, begin), size, slice(file_, begin, end), slice(file_, end, end + 4)};
    at_ = chunk.name == "IEND" ? file_.size() : end + 4;
    return chunk;
}

std::optional<PngChunk> PngChunks::next_critical() {
    std::optional<PngChunk> chunk;
    do {
        chunk = next();
    } while (chunk && !chunk->is_critical());
    return chunk;
}

} // namespace janus
