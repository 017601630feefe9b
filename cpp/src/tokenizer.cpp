#include "tokenizer.h"

#include <algorithm>
#include <utility>

#include "added_tokens.h"
#include "bpe.h"
#include "byte_level.h"
#include "error.h"
#include "pretokenizer.h"
#include "tokenizer_json.h"
#include "utf8.h"

namespace janus {
namespace {

constexpr std::string_view REPLACEMENT = "\xEF\xBF\xBD";
constexpr size_t MAX_REASON = 200;

const Json MISSING;

const Json &get_or_null(const Json &object, const char *name) {
    const Json *field = object.find(name);
    return field ? *field : MISSING;
}

void check_version(const Json &raw) {
    const Json *field = raw.find("version");
    if (!field) return;
    const std::string &version = field->text();
    if (version != "1.0") throw Unsupported{"version " + version + " of its format"};
}

void check_normalizer(const Json &normalizer) {
    if (normalizer.is_null()) return;
    const std::string &type = normalizer.at("type").text();
    // DeepSeek's: a Sequence of none.
    if (type != "Sequence" || !normalizer.at("normalizers").array().empty()) throw Unsupported{"the normalizer " + type};
}

void check_decoder(const Json &decoder) {
    if (decoder.is_null()) throw Unsupported{"no decoder"};
    const std::string &type = decoder.at("type").text();
    if (type == "ByteLevel") return;
    if (type != "Sequence") throw Unsupported{"the decoder " + type};
    const Json::array_t &steps = list_at(decoder, "decoders");
    for (const Json &step : steps) {
        const std::string &inner = step.at("type").text();
        if (inner != "ByteLevel") throw Unsupported{"the decoder " + inner};
    }
    if (steps.size() != 1) throw Unsupported{"a decoder of " + std::to_string(steps.size()) + " steps"};
}

// What a message can carry of a reason: one line.
std::string shorten(std::string_view reason) { return replace_invalid(reason.substr(0, std::min(reason.find('\n'), MAX_REASON))); }

Error broken(const std::string &path, const std::string &reason) {
    return Error(JANUS_BUNDLE, path + " is not a tokenizer: " + shorten(reason) + "; export the bundle again");
}

Error unsupported(const std::string &path, const std::string &part) {
    return Error(JANUS_BUNDLE, path + " uses " + shorten(part) + ", which this library does not support; use the Python package janus-rt");
}

bool ends_with(std::string_view text, std::string_view end) {
    return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

} // namespace

struct Tokenizer::Parts {
    explicit Parts(const Json &raw) : model(raw.at("model")), added(raw, model), pre_tokenizer(get_or_null(raw, "pre_tokenizer")) {}

    Bpe model;
    AddedTokens added;
    PreTokenizer pre_tokenizer;
};

// Truncation and padding would cut or fill every prompt, and a post_processor adds tokens: none of them is read.
Tokenizer::Tokenizer(std::string_view json_text, const std::string &path) {
    try {
        const Json raw = Json::parse(json_text);
        if (!raw.is_object()) throw Malformed{"it holds no JSON object"};
        check_version(raw);
        parts_ = std::make_unique<const Parts>(raw);
        check_normalizer(get_or_null(raw, "normalizer"));
        check_decoder(get_or_null(raw, "decoder"));
    } catch (const Malformed &malformed) {
        throw broken(path, malformed.reason);
    } catch (const Json::exception &error) {
        throw broken(path, error.what());
    } catch (const Unsupported &found) {
        throw unsupported(path, found.part);
    }
}

Tokenizer::~Tokenizer() = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
    if (!is_utf8(text)) throw Error(JANUS_PROMPT, "the text is not valid UTF-8; save or type it again as UTF-8");
    std::vector<int32_t> ids;
    for (const AddedTokens::Piece &piece : parts_->added.split(text)) {
        if (piece.id >= 0) {
            ids.push_back(piece.id);
            continue;
        }
        for (const std::string &word : parts_->pre_tokenizer.split(piece.text)) parts_->model.encode(word, ids);
    }
    return ids;
}

std::string Tokenizer::decode(const std::vector<int32_t> &ids) const {
    std::string bytes;
    for (const int32_t id : ids) {
        const std::string *token = parts_->added.id_to_token(id);
        if (!token) token = parts_->model.id_to_token(id);
        if (token && !parts_->added.is_special(*token)) append_bytes(*token, bytes);
    }
    return replace_invalid(bytes);
}

int32_t Tokenizer::token_to_id(std::string_view token) const {
    const std::string text(token);
    const int32_t id = parts_->added.token_to_id(text);
    return id >= 0 ? id : parts_->model.token_to_id(text);
}

const std::vector<AddedToken> &Tokenizer::added_tokens() const { return parts_->added.list(); }

std::string TextStream::feed(int32_t id) {
    ids_.push_back(id);
    // A special token says nothing. In the window, a long row of them would be decoded again at every step.
    if (tokenizer_.decode({id}).empty()) return "";
    window_.push_back(id);
    const std::string text = tokenizer_.decode(window_);
    if (text.size() <= prefix_.size() || ends_with(text, REPLACEMENT)) return "";
    const std::string piece = text.substr(prefix_.size());
    window_.erase(window_.begin(), window_.begin() + num_said_);
    num_said_ = static_cast<std::ptrdiff_t>(window_.size());
    prefix_ = tokenizer_.decode(window_);
    size_said_ += piece.size();
    return piece;
}

std::string TextStream::end() { return tokenizer_.decode(ids_).substr(size_said_); }

} // namespace janus
