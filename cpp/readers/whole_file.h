// Files that are whole or absent, as janus_runtime/whole_file.py writes them.
#pragma once

#include <string>
#include <string_view>

namespace janus {

// Writes `content` beside `path` under a name that no other writer has, then gives it the name `path`. Throws Error (JANUS_ERROR) if that
// exists or cannot be written; nothing is left behind then.
void write_new_file(const std::string &path, std::string_view content);

} // namespace janus
