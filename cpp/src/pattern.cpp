#include "pattern.h"

#include <climits>
#include <mutex>
#include <new>

#include <oniguruma.h>

#include "error.h"
#include "tokenizer_json.h"
#include "utf8.h"

namespace janus {
namespace {

// Steps back in one search: half a second or so. The patterns of Janus's tokenizers need a few for each character.
constexpr unsigned long RETRY_LIMIT = 50'000'000;
// Places to step back to, of some 50 bytes, which Oniguruma keeps on the heap: one for each character of a match.
constexpr unsigned STACK_LIMIT = 4'000'000;

struct FreeRegion {
    void operator()(OnigRegion *region) const { onig_region_free(region, 1); }
};
struct FreeParam {
    void operator()(OnigMatchParam *param) const { onig_free_match_param(param); }
};

std::string explain(int code, OnigErrorInfo *info = nullptr) {
    OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
    const int size = info ? onig_error_code_to_str(text, code, info) : onig_error_code_to_str(text, code);
    return std::string(reinterpret_cast<const char *>(text), static_cast<size_t>(size));
}

const OnigUChar *begin_of(std::string_view text) { return reinterpret_cast<const OnigUChar *>(text.data()); }

// One search's memory and limits. Oniguruma writes to both, so no two threads may share one.
class Searcher {
public:
    explicit Searcher(regex_t *regex) : regex_(regex), region_(onig_region_new()), param_(onig_new_match_param()) {
        if (!region_ || !param_) throw std::bad_alloc();
        // All three are set: what they are otherwise is global, and the program may have changed it.
        onig_set_match_stack_limit_size_of_match_param(param_.get(), STACK_LIMIT);
        onig_set_retry_limit_in_match_of_match_param(param_.get(), RETRY_LIMIT);
        onig_set_retry_limit_in_search_of_match_param(param_.get(), RETRY_LIMIT);
    }

    // The first match at or after `from`, or none.
    bool search(std::string_view text, size_t from, Span &found) {
        const OnigUChar *begin = begin_of(text), *end = begin + text.size();
        const int place = onig_search_with_param(regex_, begin, end, begin + from, end, region_.get(), ONIG_OPTION_NONE, param_.get());
        if (place == ONIG_MISMATCH) return false;
        if (place == ONIGERR_MEMORY) throw std::bad_alloc();
        if (place < 0) throw Error(JANUS_PROMPT, "the text cannot be cut into words (" + explain(place) + "); shorten it");
        found = {static_cast<size_t>(region_->beg[0]), static_cast<size_t>(region_->end[0])};
        // \K within a lookahead can put the begin of a match behind its end.
        if (found.begin < from || found.end < found.begin) throw Error(JANUS_PROMPT, "the text cannot be cut into words in order");
        return true;
    }

private:
    regex_t *regex_;
    std::unique_ptr<OnigRegion, FreeRegion> region_;
    std::unique_ptr<OnigMatchParam, FreeParam> param_;
};

// `\s+$` tries every place of a run of white space, and each to the run's end: 100,000 spaces take minutes. A match never begins after
// white space that the search may use, so the same is found from the run's begin alone.
std::string without_quadratic_time(std::string source) { return source == "\\s+$" ? "(?:\\G|(?<!\\s))\\s+$" : std::move(source); }

} // namespace

void Pattern::Free::operator()(re_pattern_buffer *regex) const { onig_free(regex); }

Pattern::Pattern(std::string source) {
    source = without_quadratic_time(std::move(source));
    // Neither onig_initialize nor onig_new is safe beside another.
    static std::mutex mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    OnigErrorInfo info{};
    regex_t *regex = nullptr;
    int code = onig_initialize(encodings, 1);
    if (code == ONIG_NORMAL) {
        code = onig_new(&regex, begin_of(source), begin_of(source) + source.size(), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                        &OnigSyntaxOniguruma, &info);
    }
    if (code == ONIGERR_MEMORY) throw std::bad_alloc();
    if (code != ONIG_NORMAL) throw Malformed{"a pattern that cannot be read: " + explain(code, &info)};
    regex_.reset(regex);
}

std::vector<Span> Pattern::matches(std::string_view text) const {
    if (text.size() > INT_MAX) throw Error(JANUS_PROMPT, "the text has more than 2 GiB; shorten it");
    Searcher searcher(regex_.get());
    std::vector<Span> found;
    Span match{};
    for (size_t from = 0; from <= text.size() && searcher.search(text, from, match);) {
        if (match.begin == match.end && !found.empty() && found.back().end == match.end) {
            if (from == text.size()) break;
            from += first_character(text.substr(from)).size;
        } else {
            found.push_back(match);
            from = match.end;
        }
    }
    return found;
}

} // namespace janus
