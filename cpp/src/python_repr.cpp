#include "python_repr.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "utf8.h"

namespace janus {
namespace {

// Controls, separators and invisible formatting, which are what a name can be disguised with. Python's own rule needs all of Unicode's
// tables; beyond these they differ in unassigned characters only, which both runtimes show, one of them escaped.
bool is_visible(uint32_t code) {
    if (code < 0x20 || (code >= 0x7F && code <= 0xA0) || code == 0xAD) return false;
    if (code == 0x1680 || (code >= 0x2000 && code <= 0x200F) || (code >= 0x2028 && code <= 0x202F)) return false;
    if ((code >= 0x205F && code <= 0x206F) || code == 0x3000 || code == 0xFEFF || (code >= 0xFFF9 && code <= 0xFFFB)) return false;
    return !(code >= 0xE000 && code <= 0xF8FF) && code < 0xE0000;
}

std::string format(const char *pattern, uint32_t code) {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), pattern, code);
    return text.data();
}

std::string escaped(uint32_t code) {
    if (code == '\n') return "\\n";
    if (code == '\r') return "\\r";
    if (code == '\t') return "\\t";
    return code < 0x100 ? format("\\x%02x", code) : code < 0x10000 ? format("\\u%04x", code) : format("\\U%08x", code);
}

} // namespace

std::string python_repr(std::string_view text) {
    const bool has_single = text.find('\'') != text.npos, has_double = text.find('"') != text.npos;
    const char quote = has_single && !has_double ? '"' : '\'';
    std::string result(1, quote);
    while (!text.empty()) {
        const Character character = first_character(text);
        if (character.code == '\\' || character.code == static_cast<unsigned char>(quote)) {
            result += '\\';
            result += text[0];
        } else if (is_visible(character.code)) {
            result += text.substr(0, character.size);
        } else {
            result += escaped(character.code);
        }
        text.remove_prefix(character.size);
    }
    return result + quote;
}

std::string python_repr(double number) {
    if (std::isnan(number)) return "nan";
    if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
    std::array<char, 64> text{};
    const double size = std::fabs(number);
    // Python takes exponents from 1e16 on and below 1e-4.
    const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);
    const auto end =
        std::to_chars(text.data(), text.data() + text.size(), number, fixed ? std::chars_format::fixed : std::chars_format::scientific);
    std::string result(text.data(), end.ptr);
    return fixed && result.find('.') == result.npos ? result + ".0" : result;
}

std::string python_repr(const Json &value) {
    std::string result;
    if (value.is_null()) return "None";
    if (value.is_boolean()) return value.boolean() ? "True" : "False";
    if (value.is_number_unsigned()) return std::to_string(value.unsigned_integer());
    if (value.is_number_integer()) return std::to_string(value.integer());
    if (value.is_number_float()) return python_repr(value.number());
    if (value.is_string()) return python_repr(std::string_view(value.text()));
    if (value.is_array()) {
        for (const Json &item : value.array()) result += (result.empty() ? "" : ", ") + python_repr(item);
        return "[" + result + "]";
    }
    for (const auto &[key, item] : value.object()) {
        result += (result.empty() ? "" : ", ") + python_repr(std::string_view(key)) + ": " + python_repr(item);
    }
    return "{" + result + "}";
}

std::string python_repr(const std::vector<std::string> &texts) {
    std::vector<std::string> shown;
    for (const std::string &text : texts) shown.push_back(python_repr(std::string_view(text)));
    return "[" + join(shown) + "]";
}

bool is_printable(std::string_view text) {
    for (; !text.empty(); text.remove_prefix(first_character(text).size)) {
        if (const uint32_t code = first_character(text).code; code != ' ' && !is_visible(code)) return false;
    }
    return true;
}

std::string join(const std::vector<std::string> &texts, std::string_view between) {
    std::string result;
    for (size_t i = 0; i < texts.size(); ++i) {
        if (i) result += between;
        result += texts[i];
    }
    return result;
}

} // namespace janus
