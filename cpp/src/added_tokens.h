// Tokens that are recognised in a text before it is cut into words: the special ones, and others that were added to a vocabulary.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "bpe.h"
#include "json.h"
#include "tokenizer.h"

namespace janus {

class AddedTokens {
public:
    // A piece of a text: an added token, or, where the id is -1, what stands between two.
    struct Piece {
        std::string_view text;
        int32_t id;
    };

    // The "added_tokens" of `file`, a tokenizer.json. Throws Malformed and Unsupported.
    AddedTokens(const Json &file, const Bpe &model);

    std::vector<Piece> split(std::string_view text) const;
    // -1 where there is no such token.
    int32_t token_to_id(const std::string &token) const;
    // Null where there is no such id.
    const std::string *id_to_token(int32_t id) const;
    bool is_special(const std::string &token) const { return special_.count(token) != 0; }
    const std::vector<AddedToken> &list() const { return list_; }

private:
    // Finds the longest token that begins at a place.
    class Trie {
    public:
        Trie() : nodes_(1) {}
        void add(std::string_view token, int32_t id);
        void split(std::string_view text, std::vector<Piece> &pieces) const;

    private:
        struct Node {
            std::map<char, size_t> next;
            int32_t id = -1;
        };
        Piece longest(std::string_view text) const;
        std::vector<Node> nodes_;
    };

    struct Entry {
        AddedToken token;
        bool normalized;
    };

    void add(Entry entry);

    std::unordered_map<std::string, int32_t> ids_;
    std::map<int32_t, Entry> by_id_;
    std::unordered_set<std::string> special_;
    std::vector<AddedToken> list_;
    // Tokens that are "normalized" are looked for in what the others leave, even where no normalizer is.
    Trie exact_, normalized_;
};

} // namespace janus
