// A tokenizer.json of the `tokenizers` library: byte-level BPE as Janus's and DeepSeek's tokenizers use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace janus {

struct AddedToken {
    std::string content;
    int32_t id;
    bool special;
};

class TextStream;

// Immutable once made; any number of threads may use it.
class Tokenizer {
public:
    // Reads the text of a tokenizer.json. `path` is what messages call it. Throws Error (JANUS_BUNDLE) if it is not one, or uses what is
    // not supported: then the message names the part.
    Tokenizer(std::string_view json, const std::string &path);
    ~Tokenizer();
    Tokenizer(const Tokenizer &) = delete;
    Tokenizer &operator=(const Tokenizer &) = delete;

    // Valid UTF-8 to ids, added tokens recognised wherever they stand, nothing added. Throws Error (JANUS_PROMPT) on invalid UTF-8.
    std::vector<int32_t> encode(std::string_view text) const;
    // Ids to text without special tokens; ids that do not exist are passed over, bytes that are no UTF-8 become U+FFFD.
    std::string decode(const std::vector<int32_t> &ids) const;
    // -1 where there is no such token.
    int32_t token_to_id(std::string_view token) const;
    const std::vector<AddedToken> &added_tokens() const;

private:
    struct Parts;
    std::unique_ptr<const Parts> parts_;
};

// Text of ids as they come, never a part of a character: what `tokenizers.decoders.DecodeStream` gives, step by step. What `feed` and `end`
// give joins to `decode` of all ids.
class TextStream {
public:
    explicit TextStream(const Tokenizer &tokenizer) : tokenizer_(tokenizer) {}
    std::string feed(int32_t id);
    std::string end();

private:
    const Tokenizer &tokenizer_;
    std::vector<int32_t> ids_;
    size_t size_said_ = 0; // of the text of ids_
    // DecodeStream's window: the ids of the last piece, whose text is prefix_, then those whose text is not complete.
    std::vector<int32_t> window_;
    std::ptrdiff_t num_said_ = 0;
    std::string prefix_;
};

} // namespace janus
