// Whole numbers in files. The bytes must be there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace janus {

inline uint32_t read_big(std::string_view data, size_t at, size_t size) {
    uint32_t value = 0;
    for (size_t i = 0; i < size; ++i) value = value << 8 | static_cast<uint8_t>(data[at + i]);
    return value;
}

inline uint32_t read_little(std::string_view data, size_t at, size_t size) {
    uint32_t value = 0;
    for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<uint8_t>(data[at + i]);
    return value;
}

inline std::string big_bytes(uint32_t value) {
    std::string bytes(4, '\0');
    for (size_t i = 4; i-- > 0; value >>= 8) bytes[i] = static_cast<char>(value & 0xFF);
    return bytes;
}

inline std::string little_bytes(uint32_t value) {
    const std::string big = big_bytes(value);
    return {big.rbegin(), big.rend()};
}

inline bool starts_with(std::string_view data, std::string_view beginning) { return data.substr(0, beginning.size()) == beginning; }

// The part of `data` from `begin` to before `end` that is there, as Python slices it.
inline std::string_view slice(std::string_view data, uint64_t begin, uint64_t end) {
    if (begin >= data.size() || end <= begin) return {};
    return data.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

} // namespace janus
