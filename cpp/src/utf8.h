// UTF-8 and what Python's str knows of it.
#pragma once

#include <string>
#include <string_view>

namespace janus {

// Strictly: no surrogates, no overlong forms, nothing above U+10FFFF.
bool is_utf8(std::string_view text);
// Python's str.strip: what Unicode calls white space, and U+001C to U+001F. `text` is valid UTF-8.
std::string_view strip(std::string_view text);
// `text` with U+FFFD for every ill-formed sequence, as Rust's String::from_utf8_lossy and Unicode's recommended practice replace them.
std::string replace_invalid(std::string_view text);

} // namespace janus
