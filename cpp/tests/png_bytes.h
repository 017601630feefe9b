// PNG files chunk by chunk, with what no writer writes.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <string>

namespace samples {

inline std::string big(uint32_t value) {
    std::string bytes;
    for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xFF);
    return bytes;
}

inline std::string chunk(const std::string &name, const std::string &data) {
    const std::string body = name + data;
    const auto checksum = crc32(0, reinterpret_cast<const Bytef *>(body.data()), static_cast<uInt>(body.size()));
    return big(static_cast<uint32_t>(data.size())) + body + big(static_cast<uint32_t>(checksum));
}

inline std::string deflated(const std::string &data) {
    uLongf size = compressBound(static_cast<uLong>(data.size()));
    std::string result(size, '\0');
    const auto *in = reinterpret_cast<const Bytef *>(data.data());
    compress(reinterpret_cast<Bytef *>(result.data()), &size, in, static_cast<uLong>(data.size()));
    result.resize(size);
    return result;
}

const std::string SIGNATURE = "\x89PNG\r\n\x1a\n";
const std::string END = chunk("IEND", "");

struct PngKind {
    uint32_t width, height;
    int depth = 8, colour = 2, interlaced = 0;
};

inline std::string header(const PngKind &kind) {
    std::string data = big(kind.width) + big(kind.height);
    for (int byte : {kind.depth, kind.colour, 0, 0, kind.interlaced}) data += static_cast<char>(byte);
    return chunk("IHDR", data);
}

// `rows` begin with their filter byte; `before` and `after` are chunks on either side of the pixels.
inline std::string png(const PngKind &kind, const std::string &rows, const std::string &before = "", const std::string &after = "") {
    return SIGNATURE + header(kind) + before + chunk("IDAT", deflated(rows)) + after + END;
}

} // namespace samples
