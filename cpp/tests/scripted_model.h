// janus-nano's bundle over the scripted ONNX Runtime, through the C interface.
#pragma once

#include <doctest/doctest.h>
#include <janus/janus.h>

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace scripted {

using Ids = std::vector<int32_t>;

class Model {
public:
    explicit Model(const char *bundle = JANUS_NANO_BUNDLE) {
        janus_open_options options;
        janus_open_options_init(&options, sizeof options);
        options.bundle = bundle;
        options.onnxruntime = JANUS_SCRIPTED;
        REQUIRE_MESSAGE(janus_open(&options, &handle) == JANUS_OK, janus_message());
    }
    ~Model() { janus_close(handle); }
    Model(const Model &) = delete;
    Model &operator=(const Model &) = delete;

    // -> the ids of each picture, if the call succeeds.
    janus_status generate(const std::vector<const char *> &prompts, std::vector<Ids> &pictures,
                          const std::function<void(janus_generate_options &)> &set = {}) {
        janus_generate_options options;
        janus_generate_options_init(&options, sizeof options);
        options.prompts = prompts.data();
        options.num_prompts = prompts.size();
        options.user = &pictures;
        options.on_picture = [](const janus_picture *picture, void *user) {
            static_cast<std::vector<Ids> *>(user)->emplace_back(picture->image_ids, picture->image_ids + picture->num_image_ids);
            return 1;
        };
        if (set) set(options);
        return janus_generate(handle, &options);
    }

    janus_model *handle = nullptr;
};

inline std::vector<uint8_t> make_pixels(uint32_t width, uint32_t height) {
    std::vector<uint8_t> pixels(size_t{3} * width * height);
    for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 2654435761U >> 24);
    return pixels;
}

struct Said {
    std::string text;
    Ids ids;
    janus_answer answer{};
};

// Asks in a chat, or once where `chat` is null.
inline janus_status ask(janus_model *model, janus_chat *chat, const char *text, Said &said,
                        const std::function<void(janus_ask_options &)> &set = {}) {
    const std::vector<uint8_t> pixels = make_pixels(20, 30);
    const janus_image image{sizeof image, 20, 30, 0, pixels.data()};
    const janus_image *images[] = {&image};
    janus_ask_options options;
    janus_ask_options_init(&options, sizeof options);
    options.text = text;
    options.images = images;
    options.num_images = 1;
    options.max_tokens = 10;
    options.temperature = 1;
    options.user = &said;
    options.on_text = [](const char *piece, size_t size, const int32_t *ids, size_t count, void *user) {
        static_cast<Said *>(user)->text.append(piece, size);
        static_cast<Said *>(user)->ids.insert(static_cast<Said *>(user)->ids.end(), ids, ids + count);
        return 1;
    };
    if (set) set(options);
    said.answer.struct_size = sizeof said.answer;
    return chat ? janus_chat_say(chat, &options, &said.answer) : janus_describe(model, &options, &said.answer);
}

// Sets JANUS_SCRIPTED_FAULT while it lives.
class Fault {
public:
    explicit Fault(const char *fault) { setenv("JANUS_SCRIPTED_FAULT", fault, 1); }
    ~Fault() { unsetenv("JANUS_SCRIPTED_FAULT"); }
};

} // namespace scripted
