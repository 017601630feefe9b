// A regular expression of a tokenizer.json, in the engine and the syntax of the `tokenizers` library: Oniguruma with its own syntax.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct re_pattern_buffer;

namespace janus {

struct Span {
    size_t begin;
    size_t end;
};

// Immutable; any number of threads may match with it at once.
class Pattern {
public:
    // Throws Malformed.
    explicit Pattern(std::string source);
    // Every match from left to right, none overlapping another, an empty one never at the end of another. `text` is valid UTF-8. Throws
    // Error (JANUS_PROMPT) where matching would take too long.
    std::vector<Span> matches(std::string_view text) const;

private:
    struct Free {
        void operator()(re_pattern_buffer *regex) const;
    };
    std::unique_ptr<re_pattern_buffer, Free> regex_;
};

} // namespace janus
