// Values as Python writes them: messages about a bundle are the same from both runtimes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "json.h"

namespace janus {

// repr() of a str, a number and a value that json.loads gave.
std::string python_repr(std::string_view text);
std::string python_repr(double number);
std::string python_repr(const Json &value);
// repr() of a list of str.
std::string python_repr(const std::vector<std::string> &texts);
// Whether str.isprintable() holds, for what a path may contain.
bool is_printable(std::string_view text);
// ", ".join
std::string join(const std::vector<std::string> &texts, std::string_view between = ", ");

} // namespace janus
