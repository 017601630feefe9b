#include "utf8.h"

namespace janus {
namespace {

struct Sequence {
    size_t size;
    bool valid;
};

// The first well-formed character of `text`, which is not empty, or else the longest start of one, at least a byte: what Unicode's
// recommended practice replaces by one U+FFFD (Unicode 16, section 3.9).
Sequence first_sequence(std::string_view text) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned lead = byte(0);
    if (lead < 0x80) return {1, true};
    if (lead < 0xC2 || lead > 0xF4) return {1, false};
    const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    // Overlong forms, surrogates and what lies above U+10FFFF are told apart by the second byte.
    const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    for (size_t i = 1; i < size; ++i) {
        if (i == text.size() || byte(i) < (i == 1 ? low : 0x80u) || byte(i) > (i == 1 ? high : 0xBFu)) return {i, false};
    }
    return {size, true};
}

char32_t code_point(std::string_view character) {
    const auto lead = static_cast<unsigned char>(character[0]);
    char32_t value = character.size() == 1 ? lead : lead & (0x7Fu >> character.size());
    for (const char c : character.substr(1)) value = value << 6 | (static_cast<unsigned char>(c) & 0x3Fu);
    return value;
}

bool is_stripped(char32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// Where it begins, at most four bytes before the end even in a text that is no UTF-8.
size_t last_character(std::string_view text) {
    size_t begin = text.size() - 1;
    while (begin > 0 && text.size() - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    return begin;
}

} // namespace

Character first_character(std::string_view text) {
    const size_t size = first_sequence(text).size;
    return {code_point(text.substr(0, size)), size};
}

std::string_view cut(std::string_view text, size_t size) noexcept {
    if (text.size() <= size) return text;
    while (size && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;
    return {text.data(), size};
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const Sequence sequence = first_sequence(text);
        if (!sequence.valid) return false;
        text.remove_prefix(sequence.size);
    }
    return true;
}

std::string_view strip(std::string_view text) {
    while (!text.empty()) {
        const Character character = first_character(text);
        if (!is_stripped(character.code)) break;
        text.remove_prefix(character.size);
    }
    while (!text.empty()) {
        const size_t begin = last_character(text);
        if (!is_stripped(code_point(text.substr(begin)))) break;
        text.remove_suffix(text.size() - begin);
    }
    return text;
}

std::string replace_invalid(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    while (!text.empty()) {
        const Sequence sequence = first_sequence(text);
        result += sequence.valid ? text.substr(0, sequence.size) : std::string_view("\xEF\xBF\xBD");
        text.remove_prefix(sequence.size);
    }
    return result;
}

} // namespace janus
