#include "prompt.h"

#include <algorithm>
#include <set>

#include "error.h"
#include "python_repr.h"
#include "utf8.h"

namespace janus {
namespace {

// One turn of the user, which the assistant's empty turn follows. All of it is stripped.
std::string render(const Template &pieces, const std::string &content, const std::string &system) {
    std::string text = system.empty() ? "" : system + pieces.after_system;
    text += pieces.user + ": " + std::string(strip(content)) + pieces.after_user + pieces.assistant + ":";
    return std::string(strip(text));
}

// The first `count` characters.
std::string_view beginning(std::string_view text, size_t count) {
    size_t end = 0;
    for (; count && end < text.size(); --count) end += first_character(text.substr(end)).size;
    return text.substr(0, end);
}

} // namespace

Prompter::Prompter(const Bundle &bundle)
    : manifest_(bundle.manifest()), tokenizer_(bundle.read("tokenizer.json"), (bundle.path() / "tokenizer.json").string()) {
    const Tokens &tokens = manifest_.tokens;
    const Template &pieces = manifest_.text_template;
    std::set<std::string> reserved;
    // Janus-1.3B's roles are plain words that anyone may use; Pro's are tokens of their own.
    for (const AddedToken &token : tokenizer_.added_tokens()) {
        if (token.special || token.content == pieces.user || token.content == pieces.assistant) reserved.insert(token.content);
    }
    for (const Token *token :
         {&tokens.bos, &tokens.eos, &tokens.pad, &tokens.begin_of_image, &tokens.end_of_image, &tokens.image_placeholder}) {
        reserved.insert(token->text);
        if (const int32_t got = tokenizer_.token_to_id(token->text); got != token->id) {
            throw Error(JANUS_BUNDLE, (bundle.path() / "tokenizer.json").string() + " gives " + token->text + " the id " +
                                          (got < 0 ? "None" : std::to_string(got)) + ", the manifest " + std::to_string(token->id) +
                                          "; export again");
        }
    }
    reserved_.assign(reserved.begin(), reserved.end());
}

const std::string &Prompter::check(const std::string &text) const {
    if (!is_utf8(text)) throw Error(JANUS_PROMPT, "the text is not valid UTF-8; save or type it again as UTF-8");
    if (strip(text).empty()) throw Error(JANUS_PROMPT, "the prompt is empty; expected some text");
    for (const std::string &token : reserved_) {
        if (text.find(token) != text.npos) throw Error(JANUS_PROMPT, "the text holds the reserved token " + token + "; take it out");
    }
    return text;
}

Ids Prompter::image(const std::string &text, bool from_image) const {
    const Tokens &tokens = manifest_.tokens;
    std::string content = check(text);
    if (from_image && manifest_.flow) content = tokens.image_placeholder.text + "\n" + content;
    if (from_image && !manifest_.flow) {
        content = tokens.image_placeholder.text + tokens.begin_of_image.text + tokens.pad.text + tokens.end_of_image.text + content;
    }
    std::string prompt = render(manifest_.text_template, content, "");
    // JanusFlow's prompt ends with the colon: the time takes the place of begin-of-image.
    if (!manifest_.flow) prompt += tokens.begin_of_image.text;
    Ids ids{tokens.bos.id};
    for (const int32_t id : expand(tokenizer_.encode(prompt))) {
        ids.insert(ids.end(), id == tokens.pad.id ? static_cast<size_t>(manifest_.image_output.num_tokens) : 1, id);
    }
    const int limit = manifest_.language_model.max_length - manifest_.image_output.num_tokens - (manifest_.flow ? 1 : 0);
    if (limit < 2) {
        throw Error(JANUS_PROMPT, "this model takes " + std::to_string(manifest_.language_model.max_length) +
                                      " tokens in all, too few to draw a picture");
    }
    if (ids.size() > static_cast<size_t>(limit)) {
        throw Error(JANUS_PROMPT, "prompt has " + std::to_string(ids.size()) + " tokens, this model takes " + std::to_string(limit) +
                                      " beside a picture; shorten it: " + python_repr(beginning(text, 40)) + "…");
    }
    return ids;
}

Ids Prompter::blank(const Ids &ids) const {
    Ids twin = ids;
    std::fill(twin.begin() + 1, twin.end() - 1, manifest_.tokens.pad.id);
    return twin;
}

Ids Prompter::question(const std::string &text, size_t num_images, bool first) const {
    std::string content;
    for (size_t i = 0; i < num_images; ++i) content += manifest_.tokens.image_placeholder.text + "\n";
    content += check(text);
    Ids ids;
    if (first) ids.push_back(manifest_.tokens.bos.id);
    const Ids turn = expand(tokenizer_.encode(render(manifest_.text_template, content, first ? manifest_.text_template.system : "")));
    ids.insert(ids.end(), turn.begin(), turn.end());
    return ids;
}

bool Prompter::is_replaced(int32_t id) const {
    return id == manifest_.tokens.image_placeholder.id ||
           (manifest_.image_input.includes_begin && id == manifest_.tokens.begin_of_image.id);
}

Ids Prompter::expand(const Ids &ids) const {
    const Tokens &tokens = manifest_.tokens;
    const int count = manifest_.image_input.num_tokens - (manifest_.image_input.includes_begin ? 1 : 0);
    Ids expanded;
    for (const int32_t id : ids) {
        if (id != tokens.image_placeholder.id) {
            expanded.push_back(id);
            continue;
        }
        expanded.push_back(tokens.begin_of_image.id);
        expanded.insert(expanded.end(), static_cast<size_t>(count), id);
        expanded.push_back(tokens.end_of_image.id);
    }
    return expanded;
}

} // namespace janus
