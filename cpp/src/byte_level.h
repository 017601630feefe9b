// GPT-2's alphabet: every byte as a printable character, so that a vocabulary of bytes can be written as text.
#pragma once

#include <string>
#include <string_view>

namespace janus {

std::string to_byte_characters(std::string_view bytes);
// Appends the bytes that the characters of `token` stand for, or `token` as it is if one of them is not of the alphabet.
void append_bytes(std::string_view token, std::string &bytes);

} // namespace janus
