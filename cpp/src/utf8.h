// UTF-8 and what Python's str knows of it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace janus {

struct Character {
    char32_t code;
    size_t size; // in bytes
};

// That `text` begins with, which is valid UTF-8 and not empty.
Character first_character(std::string_view text);
// The beginning of `text`, at most `size` bytes and no part of a character.
std::string_view cut(std::string_view text, size_t size) noexcept;
// Strictly: no surrogates, no overlong forms, nothing above U+10FFFF.
bool is_utf8(std::string_view text);
// Python's str.strip: what Unicode calls white space, and U+001C to U+001F. `text` is valid UTF-8.
std::string_view strip(std::string_view text);
// `text` with U+FFFD for every ill-formed sequence, as Rust's String::from_utf8_lossy and Unicode's recommended practice replace them.
std::string replace_invalid(std::string_view text);

} // namespace janus
