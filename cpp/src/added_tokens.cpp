#include "added_tokens.h"

#include "tokenizer_json.h"

namespace janus {
namespace {

void check_supported(const Json &token) {
    for (const char *name : {"single_word", "lstrip", "rstrip"}) {
        if (token.at(name).boolean()) throw Unsupported{"the added token " + token.at("content").text() + " with " + name};
    }
}

} // namespace

AddedTokens::AddedTokens(const Json &file, const Bpe &model) {
    // As the library does, a token has the id that it has in the vocabulary, or else the next free one, whatever the file says.
    auto next_id = static_cast<int32_t>(model.num_tokens());
    if (!file.contains("added_tokens")) return;
    for (const Json &token : list_at(file, "added_tokens")) {
        check_supported(token);
        const std::string &content = token.at("content").text();
        if (content.empty()) continue;
        int32_t id = token_to_id(content);
        if (id < 0) id = model.token_to_id(content);
        if (id < 0) id = next_id++;
        add({{content, id, token.at("special").boolean()}, token.at("normalized").boolean()});
    }
    for (const auto &[id, entry] : by_id_) {
        (entry.normalized ? normalized_ : exact_).add(entry.token.content, id);
        list_.push_back(entry.token);
    }
}

void AddedTokens::add(Entry entry) {
    ids_[entry.token.content] = entry.token.id;
    if (entry.token.special) special_.insert(entry.token.content);
    const int32_t id = entry.token.id;
    by_id_.insert_or_assign(id, std::move(entry));
}

std::vector<AddedTokens::Piece> AddedTokens::split(std::string_view text) const {
    std::vector<Piece> pieces, result;
    exact_.split(text, pieces);
    for (const Piece &piece : pieces) {
        if (piece.id < 0)
            normalized_.split(piece.text, result);
        else
            result.push_back(piece);
    }
    return result;
}

int32_t AddedTokens::token_to_id(const std::string &token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? -1 : found->second;
}

const std::string *AddedTokens::id_to_token(int32_t id) const {
    const auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : &found->second.token.content;
}

void AddedTokens::Trie::add(std::string_view token, int32_t id) {
    size_t node = 0;
    for (const char byte : token) {
        const size_t next = nodes_[node].next.emplace(byte, nodes_.size()).first->second;
        if (next == nodes_.size()) nodes_.emplace_back();
        node = next;
    }
    nodes_[node].id = id;
}

AddedTokens::Piece AddedTokens::Trie::longest(std::string_view text) const {
    Piece best{text.substr(0, 0), -1};
    size_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
        const auto next = nodes_[node].next.find(text[i]);
        if (next == nodes_[node].next.end()) break;
        node = next->second;
        if (nodes_[node].id >= 0) best = {text.substr(0, i + 1), nodes_[node].id};
    }
    return best;
}

void AddedTokens::Trie::split(std::string_view text, std::vector<Piece> &pieces) const {
    size_t begin = 0;
    for (size_t at = 0; at < text.size();) {
        const Piece token = longest(text.substr(at));
        if (token.id < 0) {
            ++at;
            continue;
        }
        if (begin < at) pieces.push_back({text.substr(begin, at - begin), -1});
        pieces.push_back(token);
        begin = at += token.text.size();
    }
    if (begin < text.size()) pieces.push_back({text.substr(begin), -1});
}

} // namespace janus
