#include "byte_level.h"

#include <array>
#include <cstddef>

namespace janus {
namespace {

// Bytes that are printable in Latin-1 stand for themselves, the others for U+0100 and up, in order.
constexpr unsigned FIRST_OTHER = 0x100;
constexpr unsigned NUM_OTHERS = 68;

constexpr bool is_printable(unsigned byte) { return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD); }

struct Alphabet {
    std::array<unsigned, 256> character{};
    std::array<int, FIRST_OTHER + NUM_OTHERS> byte{}; // -1: not of the alphabet
};

constexpr Alphabet make_alphabet() {
    Alphabet alphabet;
    for (int &byte : alphabet.byte) byte = -1;
    unsigned other = FIRST_OTHER;
    for (unsigned byte = 0; byte < 256; ++byte) {
        const unsigned character = is_printable(byte) ? byte : other++;
        alphabet.character[byte] = character;
        alphabet.byte[character] = static_cast<int>(byte);
    }
    return alphabet;
}

constexpr Alphabet ALPHABET = make_alphabet();

} // namespace

std::string to_byte_characters(std::string_view bytes) {
    std::string text;
    text.reserve(2 * bytes.size());
    for (const char byte : bytes) {
        const unsigned character = ALPHABET.character[static_cast<unsigned char>(byte)];
        if (character < 0x80) {
            text += static_cast<char>(character);
        } else {
            text += static_cast<char>(0xC0 | character >> 6);
            text += static_cast<char>(0x80 | (character & 0x3F));
        }
    }
    return text;
}

void append_bytes(std::string_view token, std::string &bytes) {
    const size_t before = bytes.size();
    for (size_t i = 0; i < token.size(); ++i) {
        unsigned character = static_cast<unsigned char>(token[i]);
        // The alphabet ends below U+0800: a character of three or four bytes is not of it.
        if (character >= 0xE0)
            character = static_cast<unsigned>(ALPHABET.byte.size());
        else if (character >= 0xC0)
            character = (character & 0x1F) << 6 | (static_cast<unsigned char>(token[++i]) & 0x3F);
        if (character >= ALPHABET.byte.size() || ALPHABET.byte[character] < 0) {
            bytes.resize(before);
            bytes += token;
            return;
        }
        bytes += static_cast<char>(ALPHABET.byte[character]);
    }
}

} // namespace janus
