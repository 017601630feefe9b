// Byte-pair encoding: a word is merged two symbols at a time, the pair that training merged first before all others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "json.h"

namespace janus {

class Bpe {
public:
    // The "model" of a tokenizer.json. Throws Malformed and Unsupported.
    explicit Bpe(const Json &model);
    Bpe(const Bpe &) = delete;
    Bpe &operator=(const Bpe &) = delete;

    // Appends the ids of a word, in O(n log n). Characters that are no tokens are left out where the file names no unk_token.
    void encode(const std::string &word, std::vector<int32_t> &ids) const;
    // -1 where there is no such token.
    int32_t token_to_id(const std::string &token) const;
    // Null where there is no such id.
    const std::string *id_to_token(int32_t id) const;
    size_t num_tokens() const { return ids_.size(); }

private:
    struct Merge {
        size_t rank;
        int32_t id;
    };
    struct Symbol;
    class Merger;

    void read_vocabulary(const Json &vocabulary);
    void read_merges(const Json::array_t &merges);
    int32_t known_id(const std::string &token) const;
    std::vector<int32_t> characters(const std::string &word) const;
    bool append_byte_tokens(std::string_view character, std::vector<int32_t> &ids) const;
    int32_t unknown() const;
    const Merge *find_merge(int32_t left, int32_t right) const;

    std::unordered_map<std::string, int32_t> ids_;
    std::unordered_map<int32_t, const std::string *> tokens_; // the keys of ids_
    std::unordered_map<uint64_t, Merge> merges_;
    std::optional<std::string> unk_token_;
    bool fuse_unk_ = false;
    bool byte_fallback_ = false;
    bool ignore_merges_ = false;
};

} // namespace janus
