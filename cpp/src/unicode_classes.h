// Classes of characters as patterns, of one version of Unicode whatever the installed Oniguruma's: 6.9.8 has 14.0, 6.9.9 has 15.1.
#pragma once

#include <string>
#include <string_view>

namespace janus {

// Rust's char::is_numeric in the `tokenizers` library: Unicode 17.0's Nd, Nl and No.
std::string numeric();
// `pattern` with classes of Unicode 16.0, which the library's Oniguruma has, for \p{L}, \p{N}, \P{L} and \P{N}.
std::string with_unicode_16(std::string_view pattern);

} // namespace janus
