#include "bpe.h"

#include <limits>
#include <queue>

#include "error.h"
#include "tokenizer_json.h"
#include "utf8.h"

namespace janus {
namespace {

constexpr size_t NONE = std::numeric_limits<size_t>::max();

uint64_t pair_key(int32_t left, int32_t right) { return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right); }

// A field that may be left out or null: null then.
const Json *find_field(const Json &object, const char *name) {
    const Json *field = object.find(name);
    return field && !field->is_null() ? field : nullptr;
}

bool is_set(const Json &object, const char *name) {
    const Json *field = find_field(object, name);
    return field && field->boolean();
}

void check_supported(const Json &model) {
    if (const Json *type = find_field(model, "type"); type && type->text() != "BPE") throw Unsupported{"the model " + type->text()};
    if (const Json *dropout = find_field(model, "dropout"); dropout && dropout->number() != 0) throw Unsupported{"dropout"};
    for (const char *name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
        if (const Json *affix = find_field(model, name); affix && !affix->text().empty()) throw Unsupported{name};
    }
}

int32_t read_id(const std::string &token, const Json &value) {
    const int64_t id = value.is_number_integer() ? value.integer() : -1;
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) throw Malformed{"the id of `" + token + "` is no whole number below 2^31"};
    return static_cast<int32_t>(id);
}

std::pair<std::string, std::string> read_pair(const Json &merge) {
    if (merge.is_array()) {
        const Json::array_t &tokens = merge.array();
        if (tokens.size() != 2) throw Malformed{"a merge of " + std::to_string(tokens.size()) + " tokens"};
        return {tokens[0].text(), tokens[1].text()};
    }
    const std::string &text = merge.text();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) throw Malformed{"the merge `" + text + "`"};
    return {text.substr(0, space), text.substr(space + 1)};
}

// Old files begin their merges with this.
bool is_header(const Json &merge) { return merge.is_string() && merge.text().rfind("#version", 0) == 0; }

} // namespace

Bpe::Bpe(const Json &model) {
    check_supported(model);
    fuse_unk_ = is_set(model, "fuse_unk");
    byte_fallback_ = is_set(model, "byte_fallback");
    ignore_merges_ = is_set(model, "ignore_merges");
    if (const Json *unk = find_field(model, "unk_token")) unk_token_ = unk->text();
    read_vocabulary(model.at("vocab"));
    read_merges(list_at(model, "merges"));
}

void Bpe::read_vocabulary(const Json &vocabulary) {
    if (!vocabulary.is_object()) throw Malformed{"vocab is no object"};
    const Json::object_t &tokens = vocabulary.object();
    ids_.reserve(tokens.size());
    tokens_.reserve(tokens.size());
    for (const auto &[token, value] : tokens) {
        const int32_t id = read_id(token, value);
        tokens_[id] = &ids_.emplace(token, id).first->first;
    }
}

void Bpe::read_merges(const Json::array_t &merges) {
    merges_.reserve(merges.size());
    size_t rank = 0;
    for (const Json &merge : merges) {
        if (is_header(merge)) continue;
        const auto [left, right] = read_pair(merge);
        const uint64_t key = pair_key(known_id(left), known_id(right));
        merges_[key] = {rank++, known_id(left + right)};
    }
}

int32_t Bpe::known_id(const std::string &token) const {
    const int32_t id = token_to_id(token);
    if (id < 0) throw Malformed{"Token `" + token + "` out of vocabulary"};
    return id;
}

int32_t Bpe::token_to_id(const std::string &token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? -1 : found->second;
}

const std::string *Bpe::id_to_token(int32_t id) const {
    const auto found = tokens_.find(id);
    return found == tokens_.end() ? nullptr : found->second;
}

const Bpe::Merge *Bpe::find_merge(int32_t left, int32_t right) const {
    const auto found = merges_.find(pair_key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
}

int32_t Bpe::unknown() const {
    const int32_t id = token_to_id(*unk_token_);
    if (id >= 0) return id;
    throw Error(JANUS_BUNDLE, "the tokenizer's unk_token " + *unk_token_ + " is not in its vocabulary; export the bundle again");
}

bool Bpe::append_byte_tokens(std::string_view character, std::vector<int32_t> &ids) const {
    static constexpr char HEX[] = "0123456789ABCDEF";
    std::vector<int32_t> bytes;
    for (const char c : character) {
        const auto byte = static_cast<unsigned char>(c);
        bytes.push_back(token_to_id({'<', '0', 'x', HEX[byte >> 4], HEX[byte & 15], '>'}));
        if (bytes.back() < 0) return false;
    }
    ids.insert(ids.end(), bytes.begin(), bytes.end());
    return true;
}

std::vector<int32_t> Bpe::characters(const std::string &word) const {
    std::vector<int32_t> ids;
    ids.reserve(word.size());
    // The library says an unknown character only when the next known one comes, so that a run of them can become one.
    int32_t pending = -1;
    for (size_t at = 0, size; at < word.size(); at += size) {
        size = first_character(std::string_view(word).substr(at)).size;
        const std::string character = word.substr(at, size);
        const int32_t id = token_to_id(character);
        if (id < 0 && ((byte_fallback_ && append_byte_tokens(character, ids)) || !unk_token_)) continue;
        if (pending >= 0 && (id >= 0 || !fuse_unk_)) ids.push_back(pending);
        pending = id >= 0 ? -1 : unknown();
        if (id >= 0) ids.push_back(id);
    }
    if (pending >= 0) ids.push_back(pending);
    return ids;
}

struct Bpe::Symbol {
    int32_t id;
    size_t previous; // NONE at the ends
    size_t next;
    bool merged_away = false;
};

// The symbols of one word, a doubly linked list in an array, and the merges that may be made.
class Bpe::Merger {
public:
    Merger(const Bpe &bpe, const std::vector<int32_t> &ids) : bpe_(bpe) {
        symbols_.reserve(ids.size());
        for (size_t i = 0; i < ids.size(); ++i) {
            symbols_.push_back({ids[i], i == 0 ? NONE : i - 1, i + 1 == ids.size() ? NONE : i + 1});
        }
        for (size_t i = 0; i < ids.size(); ++i) propose(i);
    }

    void run() {
        while (!queue_.empty()) {
            const Candidate best = queue_.top();
            queue_.pop();
            if (is_current(best)) apply(best);
        }
    }

    void append_to(std::vector<int32_t> &ids) const {
        for (const Symbol &symbol : symbols_) {
            if (!symbol.merged_away) ids.push_back(symbol.id);
        }
    }

private:
    struct Candidate {
        size_t rank;
        size_t left;
        int32_t id;
        // std::priority_queue gives the largest: the lowest rank, and of those the leftmost.
        bool operator<(const Candidate &other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
    };

    const Merge *merge_at(size_t left) const {
        const Symbol &symbol = symbols_[left];
        return symbol.next == NONE ? nullptr : bpe_.find_merge(symbol.id, symbols_[symbol.next].id);
    }

    void propose(size_t left) {
        if (const Merge *merge = merge_at(left)) queue_.push({merge->rank, left, merge->id});
    }

    // Whether the pair is still there. As in the library, another pair that became the same token will do.
    bool is_current(const Candidate &candidate) const {
        if (symbols_[candidate.left].merged_away) return false;
        const Merge *merge = merge_at(candidate.left);
        return merge && merge->id == candidate.id;
    }

    void apply(const Candidate &candidate) {
        Symbol &left = symbols_[candidate.left];
        Symbol &right = symbols_[left.next];
        left.id = candidate.id;
        left.next = right.next;
        right.merged_away = true;
        if (left.next != NONE) symbols_[left.next].previous = candidate.left;
        if (left.previous != NONE) propose(left.previous);
        propose(candidate.left);
    }

    const Bpe &bpe_;
    std::vector<Symbol> symbols_;
    std::priority_queue<Candidate> queue_;
};

void Bpe::encode(const std::string &word, std::vector<int32_t> &ids) const {
    if (ignore_merges_) {
        if (const int32_t id = token_to_id(word); id >= 0) {
            ids.push_back(id);
            return;
        }
    }
    Merger merger(*this, characters(word));
    merger.run();
    merger.append_to(ids);
}

} // namespace janus
