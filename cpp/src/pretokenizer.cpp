#include "pretokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "byte_level.h"
#include "tokenizer_json.h"
#include "unicode_classes.h"

namespace janus {
namespace {

// GPT-2's, which the library has built in.
constexpr char BYTE_LEVEL_PATTERN[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// What Rust's regex::escape escapes.
std::string escape(std::string_view text) {
    std::string pattern;
    for (const char c : text) {
        if (std::string_view("\\.+*?()|[]{}^$#&-~").find(c) != std::string_view::npos) pattern += '\\';
        pattern += c;
    }
    return pattern;
}

// {"String": text} or {"Regex": pattern}.
std::string read_pattern(const Json &pattern) {
    if (!pattern.is_object() || pattern.object().size() != 1) throw Malformed{"a Split pattern that is neither a String nor a Regex"};
    const auto &[kind, text] = pattern.object()[0];
    if (kind == "String") return escape(text.text());
    if (kind != "Regex") throw Unsupported{"a Split pattern of kind " + kind};
    return with_unicode_16(text.text());
}

} // namespace

struct PreTokenizer::Piece {
    size_t begin;
    size_t end;
    bool match;
};

PreTokenizer::PreTokenizer(const Json &part) {
    if (!part.is_null()) add(part);
}

// Recursion is as deep as brackets may be nested, which Json limits.
void PreTokenizer::add(const Json &part) {
    const std::string &type = part.at("type").text();
    if (type == "Sequence") {
        for (const Json &inner : list_at(part, "pretokenizers")) add(inner);
    } else if (type == "ByteLevel") {
        steps_.push_back(read_byte_level(part));
    } else if (type == "Digits") {
        steps_.push_back(read_digits(part));
    } else if (type == "Split") {
        steps_.push_back(read_split(part));
    } else {
        throw Unsupported{"the pre_tokenizer " + type};
    }
}

PreTokenizer::Step PreTokenizer::read_byte_level(const Json &part) {
    Step step;
    step.add_prefix_space = part.at("add_prefix_space").boolean();
    const Json *use_regex = part.find("use_regex");
    if (!use_regex || use_regex->boolean()) step.pattern = std::make_unique<Pattern>(with_unicode_16(BYTE_LEVEL_PATTERN));
    step.to_byte_characters = true;
    return step;
}

PreTokenizer::Step PreTokenizer::read_digits(const Json &part) {
    Step step;
    step.pattern = std::make_unique<Pattern>(numeric());
    step.behavior = part.at("individual_digits").boolean() ? Behavior::isolated : Behavior::contiguous;
    return step;
}

PreTokenizer::Step PreTokenizer::read_split(const Json &part) {
    Step step;
    step.pattern = std::make_unique<Pattern>(read_pattern(part.at("pattern")));
    step.behavior = read_behavior(part.at("behavior"));
    step.invert = part.at("invert").boolean();
    return step;
}

PreTokenizer::Behavior PreTokenizer::read_behavior(const Json &part) {
    static constexpr std::array<std::pair<const char *, Behavior>, 5> BEHAVIORS{{
        {"Isolated", Behavior::isolated},
        {"Removed", Behavior::removed},
        {"MergedWithPrevious", Behavior::merged_with_previous},
        {"MergedWithNext", Behavior::merged_with_next},
        {"Contiguous", Behavior::contiguous},
    }};
    const std::string &name = part.text();
    for (const auto &[known, behavior] : BEHAVIORS) {
        if (name == known) return behavior;
    }
    throw Unsupported{"the Split behavior " + name};
}

std::vector<std::string> PreTokenizer::split(std::string_view text) const {
    std::vector<std::string> words{std::string(text)};
    for (const Step &step : steps_) {
        std::vector<std::string> smaller;
        for (std::string &word : words) apply(step, std::move(word), smaller);
        words = std::move(smaller);
    }
    return words;
}

void PreTokenizer::apply(const Step &step, std::string word, std::vector<std::string> &words) {
    if (step.add_prefix_space && word.front() != ' ') word.insert(word.begin(), ' ');
    for (const Piece &piece : cut(step, word)) {
        // A match that takes no room cuts, and is gone.
        if (piece.begin == piece.end) continue;
        std::string smaller = word.substr(piece.begin, piece.end - piece.begin);
        words.push_back(step.to_byte_characters ? to_byte_characters(smaller) : std::move(smaller));
    }
}

std::vector<PreTokenizer::Piece> PreTokenizer::cut(const Step &step, std::string_view word) {
    if (!step.pattern) return {{0, word.size(), false}};
    std::vector<Piece> pieces;
    size_t end = 0;
    for (const Span &match : step.pattern->matches(word)) {
        if (end != match.begin) pieces.push_back({end, match.begin, step.invert});
        pieces.push_back({match.begin, match.end, !step.invert});
        end = match.end;
    }
    if (end != word.size()) pieces.push_back({end, word.size(), step.invert});
    join(step.behavior, pieces);
    return pieces;
}

void PreTokenizer::join(Behavior behavior, std::vector<Piece> &pieces) {
    if (behavior == Behavior::isolated) return;
    if (behavior == Behavior::removed) {
        pieces.erase(std::remove_if(pieces.begin(), pieces.end(), [](const Piece &piece) { return piece.match; }), pieces.end());
        return;
    }
    const bool backwards = behavior == Behavior::merged_with_next;
    if (backwards) std::reverse(pieces.begin(), pieces.end());
    std::vector<Piece> joined;
    bool previous = false;
    for (const Piece &piece : pieces) {
        const bool joins = behavior == Behavior::contiguous ? piece.match == previous : piece.match && !previous;
        if (!joins || joined.empty())
            joined.push_back(piece);
        else if (backwards)
            joined.back().begin = piece.begin;
        else
            joined.back().end = piece.end;
        previous = piece.match;
    }
    if (backwards) std::reverse(joined.begin(), joined.end());
    pieces = std::move(joined);
}

} // namespace janus
