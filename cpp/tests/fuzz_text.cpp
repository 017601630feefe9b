// Any bytes as text for janus-nano's tokenizer: ids whose text is the same again, or an Error.
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "error.h"
#include "tokenizer.h"
#include "utf8.h"

namespace {

const janus::Tokenizer &nano() {
    static const janus::Tokenizer tokenizer = [] {
        std::ifstream stream(JANUS_NANO_BUNDLE "/tokenizer.json");
        std::ostringstream text;
        text << stream.rdbuf();
        return janus::Tokenizer(text.str(), "tokenizer.json");
    }();
    return tokenizer;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const std::string text(reinterpret_cast<const char *>(data), size);
    try {
        const std::vector<int32_t> ids = nano().encode(text);
        janus::TextStream stream(nano());
        std::string streamed;
        for (const int32_t id : ids) streamed += stream.feed(id);
        streamed += stream.end();
        if (!janus::is_utf8(streamed) || streamed != nano().decode(ids)) std::abort();
    } catch (const janus::Error &error) {
        if (janus::is_utf8(text) || error.status != JANUS_PROMPT) std::abort();
    }
    return 0;
}
