#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "bpe.h"
#include "byte_level.h"
#include "error.h"
#include "pretokenizer.h"
#include "tokenizer.h"

using janus::Bpe;
using janus::Error;
using janus::PreTokenizer;
using janus::TextStream;
using janus::Tokenizer;
using nlohmann::json;

namespace {

using Ids = std::vector<int32_t>;
using Words = std::vector<std::string>;

std::string read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

const Tokenizer &nano() {
    static const Tokenizer tokenizer(read(JANUS_NANO_BUNDLE "/tokenizer.json"), "tokenizer.json");
    return tokenizer;
}

json split(const json &pattern, const std::string &behavior = "Isolated", bool invert = false) {
    return {{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", invert}};
}

json regex(const std::string &pattern) { return {{"Regex", pattern}}; }

// As the library reads it.
janus::Json read(const json &value) { return janus::Json::parse(value.dump()); }

Words words(const json &part, const std::string &text) { return PreTokenizer(read(part)).split(text); }

// Of Janus-Pro's, with fewer letters.
const json DEEPSEEK = {{"type", "Sequence"},
                       {"pretokenizers",
                        {split(regex("[\r\n]")),
                         split(regex(u8"\\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+")),
                         split(regex(u8"\\s?[!-/:-~！-／：-～‘-‟　-。]+")),
                         split(regex("\\s+$")),
                         split(regex(u8"[一-龥ࠀ-一가-퟿]+")),
                         {{"type", "Digits"}, {"individual_digits", true}},
                         {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}}}};

json added_token(const std::string &content, bool special, bool normalized = false) {
    return {{"id", 0},         {"content", content},       {"single_word", false}, {"lstrip", false},
            {"rstrip", false}, {"normalized", normalized}, {"special", special}};
}

// Ids 0 to 255 are bytes, 256 "ab", 257 "abc", 258 and up what is added.
json small_file() {
    json vocabulary;
    for (int byte = 0; byte < 256; ++byte) vocabulary[janus::to_byte_characters(std::string(1, static_cast<char>(byte)))] = byte;
    vocabulary["ab"] = 256;
    vocabulary["abc"] = 257;
    return {{"version", "1.0"},
            {"added_tokens", {added_token("<s>", true), added_token("<s>>", true), added_token(u8"日!", false, true)}},
            {"normalizer", {{"type", "Sequence"}, {"normalizers", json::array()}}},
            {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
            {"decoder", {{"type", "ByteLevel"}}},
            {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", {"a b", "ab c"}}}}};
}

std::string message(const std::string &text) {
    try {
        Tokenizer tokenizer(text, "t.json");
    } catch (const Error &error) {
        CHECK(error.status == JANUS_BUNDLE);
        return error.message;
    }
    return "";
}

std::string message_without(const char *name) {
    json file = small_file();
    file.erase(name);
    return message(file.dump());
}

// What the file is refused for if `pointer` is `value`.
std::string message_with(const char *pointer, const json &value) {
    json file = small_file();
    file[json::json_pointer(pointer)] = value;
    return message(file.dump());
}

std::string stream(const Tokenizer &tokenizer, const Ids &ids, Words &pieces) {
    TextStream text(tokenizer);
    for (const int32_t id : ids) pieces.push_back(text.feed(id));
    std::string whole;
    for (const std::string &piece : pieces) whole += piece;
    return whole + text.end();
}

} // namespace

// Ids of tokenizers 0.23.3.
TEST_CASE("janus-nano's ids are those of the Python library") {
    CHECK(nano().encode("") == Ids{});
    CHECK(nano().encode("a red circle") == Ids{72, 335, 301});
    CHECK(nano().encode(u8"A man's 12 dogs, it's  3½!\n\n <|User|>: x<begin_of_image>") ==
          Ids{40, 361, 278, 14,  90, 228, 24,  25, 228, 75,  86, 78, 90,  19, 290, 91,
              14, 90,  228, 228, 26, 134, 129, 8,  264, 228, 6,  33, 228, 95, 3});
    CHECK(nano().encode("<|User") == Ids{35, 99, 60, 90, 421});
    const std::string text = u8"日本語 ñ é́ 👩‍👩‍👧 \u3000x\r\n\tend   ";
    const Ids ids{170, 253, 106, 170, 258, 113, 172, 111, 260, 228, 135, 117, 228, 135, 110, 144, 231,
                  228, 180, 261, 247, 110, 166, 230, 243, 180, 261, 247, 110, 166, 230, 243, 180, 261,
                  247, 108, 228, 167, 230, 230, 95,  209, 206, 205, 76,  282, 228, 228, 228};
    CHECK(nano().encode(text) == ids);
    CHECK(nano().decode(ids) == text);
    CHECK(nano().decode({0, 40, -1, 361, 1000000, 1}) == "A m");
    CHECK(nano().token_to_id("<begin_of_image>") == 3);
    CHECK(nano().token_to_id("nothing") == -1);
    CHECK(nano().added_tokens().size() == 8);
    CHECK(nano().added_tokens()[6].content == "<|User|>");
    CHECK(nano().added_tokens()[6].special);
}

TEST_CASE("a text that is not UTF-8 is refused") {
    for (const char *text : {"\xFF", "a\xED\xA0\x80"}) {
        CHECK_THROWS_WITH(nano().encode(text), "the text is not valid UTF-8; save or type it again as UTF-8");
    }
}

TEST_CASE("a stream says whole characters as soon as they are there") {
    Words pieces;
    CHECK(stream(nano(), nano().encode(u8"é a"), pieces) == u8"é a");
    CHECK(pieces == Words{"", u8"é", " a"});
    // Special tokens and ids that do not exist say nothing, not even between the bytes of a character.
    const Ids accented = nano().encode(u8"é");
    pieces.clear();
    CHECK(stream(nano(), {0, accented[0], 3, -5, accented[1], 1, 72}, pieces) == u8"éa");
    CHECK(pieces == Words{"", "", "", "", u8"é", "", "a"});
    // What is never completed is said at the end.
    pieces.clear();
    CHECK(stream(nano(), {72, accented[0]}, pieces) == u8"a\uFFFD");
    CHECK(pieces.back().empty());
}

TEST_CASE("every byte has a printable character") {
    std::string bytes, again;
    for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
    const std::string characters = janus::to_byte_characters(bytes);
    CHECK(characters.find('\n') == std::string::npos);
    CHECK(janus::to_byte_characters("a b\n") == u8"aĠbĊ");
    janus::append_bytes(characters, again);
    CHECK(again == bytes);
    // One character that stands for no byte, and the token is itself.
    again.clear();
    janus::append_bytes(u8"aĠ日", again);
    CHECK(again == u8"aĠ日");
}

TEST_CASE("words of Janus-Pro's layout") {
    CHECK(words(DEEPSEEK, u8"Hello  World 12½, ok！\r\n\n  x  \n 日本 ひ한é") ==
          Words{"Hello", u8"Ġ", u8"ĠWorld", u8"Ġ",  "1",    "2",   u8"Â½", ",",        u8"Ġok", u8"ï¼ģ",    u8"č",
                u8"Ċ",   u8"Ċ", u8"Ġ",      u8"Ġx", u8"ĠĠ", u8"Ċ", u8"Ġ",  u8"æĹ¥æľ¬", u8"Ġ",   u8"ãģ²íķľ", u8"Ã©"});
    CHECK(words(DEEPSEEK, u8"   日") == Words{u8"ĠĠĠ", u8"æĹ¥"});
}

TEST_CASE("ByteLevel cuts as GPT-2 does, and may put a space first") {
    const json part = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
    CHECK(words(part, "it's  12.5 x") == Words{u8"Ġit", "'s", u8"Ġ", u8"Ġ12", ".", "5", u8"Ġx"});
    CHECK(words(part, " a\n\n b ") == Words{u8"Ġa", u8"ĊĊ", u8"Ġb", u8"Ġ"});
    const json whole = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    CHECK(words(whole, "it's 12") == Words{u8"it'sĠ12"});
}

TEST_CASE("letters and numbers are those of the library's Unicode, not of the installed Oniguruma's") {
    const json part = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
    const auto num_words = [&](const char *text) { return words(part, text).size(); };
    // CJK extensions H (15.0) and I (15.1), Ol Onal (16.0): letters. Garay digits (16.0): numbers. Sidetic (17.0): not yet letters.
    for (const char *letter : {u8"\U00031350", u8"\U0002EBF0", u8"\U0001E5D0"}) CHECK(num_words((std::string("a") + letter).c_str()) == 1);
    CHECK(num_words(u8"1\U00010D40") == 1);
    CHECK(num_words(u8"a\U00010940") == 2);
    const json digits = {{"type", "Digits"}, {"individual_digits", true}};
    // Tolong Siki digits are of 17.0; Roman numbers and fractions are digits too, CJK numbers are not.
    CHECK(words(digits, u8"a\U00011DE0\U00010D40Ⅷ½²三") == Words{"a", u8"\U00011DE0", u8"\U00010D40", u8"Ⅷ", u8"½", u8"²", u8"三"});
    CHECK(words({{"type", "Digits"}, {"individual_digits", false}}, u8"a12Ⅷb") == Words{"a", u8"12Ⅷ", "b"});
    CHECK(words(split(regex("\\P{L}")), u8"a\U0002EBF0.1") == Words{u8"a\U0002EBF0", ".", "1"});
    CHECK(words(split(regex("[^\\p{N}a]+")), "abc1") == Words{"a", "bc", "1"});
    CHECK(words(split(regex("\\\\p\\{L}")), "a\\p{L}b") == Words{"a", "\\p{L}", "b"});
}

TEST_CASE("a Split's behaviors") {
    const auto cut = [](const char *behavior, bool invert, const json &pattern, const char *text) {
        return words(split(pattern, behavior, invert), text);
    };
    const json digit = regex("[0-9]"), dashes = {{"String", "--"}}, empty = regex("x*");
    CHECK(cut("Isolated", false, digit, "a12b3") == Words{"a", "1", "2", "b", "3"});
    CHECK(cut("Isolated", true, dashes, "a----b--") == Words{"a", "--", "--", "b", "--"});
    CHECK(cut("Isolated", false, empty, "axxb") == Words{"a", "xx", "b"});
    CHECK(cut("Removed", false, digit, "a12b3") == Words{"a", "b"});
    CHECK(cut("Removed", true, digit, "a12b3") == Words{"1", "2", "3"});
    CHECK(cut("MergedWithPrevious", false, digit, "a12b3") == Words{"a1", "2", "b3"});
    CHECK(cut("MergedWithPrevious", false, empty, "axxb") == Words{"axx", "b"});
    CHECK(cut("MergedWithPrevious", true, dashes, "a----b--") == Words{"a", "--", "--b", "--"});
    CHECK(cut("MergedWithNext", false, digit, "a12b3") == Words{"a", "1", "2b", "3"});
    CHECK(cut("MergedWithNext", true, dashes, "a----b--") == Words{"a--", "--", "b--"});
    CHECK(cut("Contiguous", false, digit, "a12b3") == Words{"a", "12", "b", "3"});
    CHECK(cut("Contiguous", true, empty, "axxb") == Words{"a", "xx", "b"});
    CHECK(cut("Isolated", false, {{"String", "a.+"}}, "aba.+") == Words{"ab", "a.+"});
}

TEST_CASE("added tokens come before words, the longest first") {
    const Tokenizer tokenizer(small_file().dump(), "t.json");
    CHECK(tokenizer.encode("<s>>abc<s><s") == Ids{259, 257, 258, '<', 's'});
    CHECK(tokenizer.encode(u8"a日!b") == Ids{'a', 260, 'b'});
    // Special tokens are not said, others are, and stand for themselves.
    CHECK(tokenizer.decode({258, 257, 260, 259}) == u8"abc日!");
    CHECK_FALSE(tokenizer.added_tokens()[2].special);
}

TEST_CASE("merges are pairs or lines, and the first of them comes first") {
    const json vocabulary = {{"a", 0}, {"b", 1}, {"c", 2}, {"ab", 3}, {"bc", 4}, {"abc", 5}, {"aa", 6}};
    const auto encode = [&](const json &merges, const char *word) {
        Ids ids;
        Bpe(read({{"vocab", vocabulary}, {"merges", merges}})).encode(word, ids);
        return ids;
    };
    CHECK(encode({"a b", "b c", "ab c"}, "abcaaabc") == Ids{5, 0, 0, 5});
    CHECK(encode(json::array({{"b", "c"}, {"a", "b"}, {"a", "bc"}}), "abcabbc") == Ids{5, 3, 4});
    CHECK(encode({"#version: 0.2", "a a"}, "aaaaa") == Ids{6, 6, 0});
    CHECK(encode(json::array(), "ab") == Ids{0, 1});
}

TEST_CASE("what becomes of characters that are no tokens") {
    json model = {{"vocab", {{"a", 0}, {"b", 1}, {"?", 2}, {"<0xC3>", 3}, {"<0xA9>", 4}, {"ab", 5}, {"xab", 6}}},
                  {"merges", json::array()}};
    const auto encode = [&](const char *word) {
        Ids ids;
        Bpe(read(model)).encode(word, ids);
        return ids;
    };
    CHECK(encode("axb") == Ids{0, 1});
    model["unk_token"] = "?";
    CHECK(encode("xxaxb") == Ids{2, 2, 0, 2, 1});
    model["fuse_unk"] = true;
    CHECK(encode("xxaxyz") == Ids{2, 0, 2});
    model["byte_fallback"] = true;
    CHECK(encode(u8"aéxb") == Ids{0, 3, 4, 2, 1});
    model["ignore_merges"] = true;
    CHECK(encode("xab") == Ids{6});
    model["unk_token"] = "none";
    CHECK_THROWS_WITH(encode("z"), "the tokenizer's unk_token none is not in its vocabulary; export the bundle again");
}

TEST_CASE("a file that is no tokenizer is refused with a reason") {
    CHECK(message(small_file().dump()).empty());
    for (const char *text : {"", "{", "[]", "{}", "\xFF", "{\"model\": \"\xFF\"}", "{\"model\": 1}"}) {
        CAPTURE(text);
        const std::string found = message(text);
        CHECK(found.rfind("t.json is not a tokenizer: ", 0) == 0);
        CHECK(found.find("; export the bundle again") != std::string::npos);
        CHECK(found.find("json.exception") == std::string::npos);
    }
    CHECK(message_without("model") == "t.json is not a tokenizer: key 'model' not found; export the bundle again");
    CHECK(message_with("/model/merges", {"a"}) == "t.json is not a tokenizer: the merge `a`; export the bundle again");
    CHECK(message_with("/model/merges", {"a ?b"}) == "t.json is not a tokenizer: Token `?b` out of vocabulary; export the bundle again");
    CHECK(message_with("/model/vocab/a", -1).find("the id of `a` is no whole number below 2^31") != std::string::npos);
    CHECK(message_with("/pre_tokenizer", split(regex("["))).find("a pattern that cannot be read: ") != std::string::npos);
    CHECK(message(std::string(100000, '[')).rfind("t.json is not a tokenizer: ", 0) == 0);
    json deep = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
    for (int i = 0; i < 1000; ++i) deep = {{"type", "Sequence"}, {"pretokenizers", {deep}}};
    CHECK(message_with("/pre_tokenizer", deep).find("nested more than") != std::string::npos);
}

TEST_CASE("what is not supported is named") {
    const auto uses = [](const char *part) {
        return "t.json uses " + std::string(part) + ", which this library does not support; use the Python package janus-rt";
    };
    CHECK(message_with("/version", "2.0") == uses("version 2.0 of its format"));
    CHECK(message_with("/normalizer", {{"type", "NFC"}}) == uses("the normalizer NFC"));
    CHECK(message_with("/pre_tokenizer", {{"type", "Metaspace"}}) == uses("the pre_tokenizer Metaspace"));
    CHECK(message_with("/pre_tokenizer", split(regex("a"), "Odd")) == uses("the Split behavior Odd"));
    CHECK(message_with("/decoder", nullptr) == uses("no decoder"));
    CHECK(message_with("/decoder", {{"type", "Fuse"}}) == uses("the decoder Fuse"));
    CHECK(message_with("/model/type", "Unigram") == uses("the model Unigram"));
    CHECK(message_with("/model/dropout", 0.1) == uses("dropout"));
    CHECK(message_with("/model/end_of_word_suffix", "</w>") == uses("end_of_word_suffix"));
    CHECK(message_with("/model/continuing_subword_prefix", "").empty());
    CHECK(message_with("/added_tokens/0/lstrip", true) == uses("the added token <s> with lstrip"));
    const json one = {{"type", "Sequence"}, {"decoders", {{{"type", "ByteLevel"}}}}};
    CHECK(message_with("/decoder", one).empty());
}

// In n log n steps: by the square they would not end.
TEST_CASE("long runs end") {
    const std::string spaces(1'000'000, ' ');
    CHECK(nano().encode(std::string(1'000'000, 'o')).size() > 100'000);
    CHECK_FALSE(nano().encode(spaces + "x").empty());
    CHECK(words(DEEPSEEK, spaces + u8"日").size() == 2);
    CHECK(words(DEEPSEEK, spaces + "\n").size() == 2);
}

TEST_CASE("a pattern that would take for ever is stopped") {
    const PreTokenizer part(read(split(regex("(?:a|aa)+b"))));
    CHECK_THROWS_AS(part.split(std::string(100, 'a') + "cb"), Error);
}

TEST_CASE("threads share a tokenizer") {
    const std::string text = u8"A red circle, 12 dogs <|User|>: 日本語";
    const Ids expected = nano().encode(text);
    std::vector<std::thread> threads;
    std::vector<int> wrong(4);
    for (size_t i = 0; i < wrong.size(); ++i) {
        threads.emplace_back([&, i] {
            const Tokenizer own(small_file().dump(), "t.json");
            for (int n = 0; n < 50; ++n) wrong[i] += nano().encode(text) != expected || own.decode(own.encode(text)) != text;
        });
    }
    for (std::thread &thread : threads) thread.join();
    CHECK(wrong == std::vector<int>(4));
}
