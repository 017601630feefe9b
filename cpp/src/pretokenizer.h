// Cuts a text between added tokens into the words that are merged each on its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "json.h"
#include "pattern.h"

namespace janus {

class PreTokenizer {
public:
    // The "pre_tokenizer" of a tokenizer.json: null, ByteLevel, Digits, Split or a Sequence of such. Throws Malformed and Unsupported.
    explicit PreTokenizer(const Json &part);
    // Words, none empty. `text` is valid UTF-8 and not empty. Throws Error (JANUS_PROMPT).
    std::vector<std::string> split(std::string_view text) const;

private:
    // What becomes of the matches of a pattern.
    enum class Behavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };
    // Any of the supported kinds, in the order of what it does.
    struct Step {
        bool add_prefix_space = false;
        std::unique_ptr<const Pattern> pattern; // may be null
        Behavior behavior = Behavior::isolated;
        bool invert = false;
        bool to_byte_characters = false;
    };
    struct Piece;

    void add(const Json &part);
    static Step read_byte_level(const Json &part);
    static Step read_digits(const Json &part);
    static Step read_split(const Json &part);
    static Behavior read_behavior(const Json &part);
    static std::vector<Piece> cut(const Step &step, std::string_view word);
    static void join(Behavior behavior, std::vector<Piece> &pieces);
    static void apply(const Step &step, std::string word, std::vector<std::string> &words);

    std::vector<Step> steps_;
};

} // namespace janus
