// libFuzzer over a tokenizer.json and a text: no input may crash, hang or throw anything but Error.
// The input is the file, a byte 0xFF, which is in no JSON, and the text. An empty file stands for a small one that is valid.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "byte_level.h"
#include "error.h"
#include "tokenizer.h"

namespace {

using nlohmann::json;

json split(const char *pattern) {
    return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

std::string small_file() {
    json vocabulary;
    for (int byte = 0; byte < 256; ++byte) vocabulary[janus::to_byte_characters(std::string(1, static_cast<char>(byte)))] = byte;
    for (const char *token : {"ab", "abc", u8"Ã©"}) vocabulary[token] = vocabulary.size();
    const json special = {{"id", 0},         {"content", "<s>"},    {"single_word", false}, {"lstrip", false},
                          {"rstrip", false}, {"normalized", false}, {"special", true}};
    const json steps = {split("[\r\n]"),
                        split("\\s?[A-Za-z]+"),
                        split("\\s+$"),
                        {{"type", "Digits"}, {"individual_digits", true}},
                        {{"type", "ByteLevel"}, {"add_prefix_space", false}}};
    const json file = {{"added_tokens", {special}},
                       {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", steps}}},
                       {"decoder", {{"type", "ByteLevel"}}},
                       {"model", {{"vocab", vocabulary}, {"merges", {"a b", "ab c", u8"Ã ©"}}}}};
    return file.dump();
}

void require(bool holds) {
    if (!holds) std::abort();
}

void exercise(const janus::Tokenizer &tokenizer, std::string_view text, bool is_small) {
    const std::vector<int32_t> ids = tokenizer.encode(text);
    const std::string whole = tokenizer.decode(ids);
    if (is_small && text.find("<s>") == std::string_view::npos) require(whole == text);
    janus::TextStream stream(tokenizer);
    std::string said;
    for (const int32_t id : ids) said += stream.feed(id);
    require(said + stream.end() == whole);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const std::string small = small_file();
    const std::string_view input(reinterpret_cast<const char *>(data), size);
    const size_t border = input.find('\xFF');
    const std::string_view file = input.substr(0, border);
    const std::string_view text = border == std::string_view::npos ? std::string_view() : input.substr(border + 1);
    try {
        const janus::Tokenizer tokenizer(file.empty() ? small : file, "tokenizer.json");
        exercise(tokenizer, text, file.empty());
    } catch (const janus::Error &) {
    }
    return 0;
}
