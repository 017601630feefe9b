// A C++17 face over janus.h: handles that close themselves, exceptions, callables. Header only.
//
//     janus::Model model("engines/janus-nano");
//     janus::Drawing drawing;
//     drawing.prompts = {"a red circle"};
//     model.generate(drawing, [](const janus::Picture &picture) { save(picture); });
//
// See janus.h for what threads may do. An exception that a callback throws ends the call and comes out of it.
#ifndef JANUS_JANUS_HPP
#define JANUS_JANUS_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <janus/janus.h>

namespace janus {

class Exception : public std::runtime_error {
public:
    Exception(janus_status status, const char *message) : std::runtime_error(message), status_(status) {}
    janus_status status() const noexcept { return status_; }
    // "prompt", "bundle", …: see janus_status_name.
    const char *code() const noexcept { return janus_status_name(status_); }

private:
    janus_status status_;
};

namespace detail {

inline void check(janus_status status) {
    if (status != JANUS_OK) throw Exception(status, janus_message());
}

template <typename Handle, void (*close)(Handle *)> struct Closer {
    void operator()(Handle *handle) const noexcept { close(handle); }
};

template <typename Handle, void (*close)(Handle *)> using Owner = std::unique_ptr<Handle, Closer<Handle, close>>;

// A text that ends at its first zero byte would be another one.
inline const char *c_string(const std::string &text) {
    if (text.find('\0') != std::string::npos) throw Exception(JANUS_PROMPT, "the text holds a zero byte; take it out");
    return text.c_str();
}

// Calls back into C++ and keeps what is thrown there.
class Guard {
public:
    template <typename Call> int operator()(Call call) noexcept {
        try {
            return call() ? 1 : 0;
        } catch (...) {
            thrown_ = std::current_exception();
            return 0;
        }
    }
    void check(janus_status status) const {
        if (thrown_) std::rethrow_exception(thrown_);
        detail::check(status);
    }

private:
    std::exception_ptr thrown_;
};

// A callable of a step or a piece may return nothing, or false to stop.
template <typename Callable, typename... Arguments> bool goes_on(Callable &callable, Arguments &&...arguments) {
    if constexpr (std::is_void_v<std::invoke_result_t<Callable &, Arguments...>>) {
        callable(std::forward<Arguments>(arguments)...);
        return true;
    } else {
        return static_cast<bool>(callable(std::forward<Arguments>(arguments)...));
    }
}

} // namespace detail

using Picture = janus_picture;
using Info = janus_info;
using Answer = janus_answer;

// Cancels calls from any thread, once and for all.
class CancelToken {
public:
    CancelToken() {
        janus_cancel_token *token = nullptr;
        detail::check(janus_cancel_token_create(&token));
        token_.reset(token);
    }
    void cancel() noexcept { janus_cancel(token_.get()); }
    const janus_cancel_token *get() const noexcept { return token_.get(); }

private:
    detail::Owner<janus_cancel_token, janus_cancel_token_destroy> token_;
};

// An 8-bit RGB picture: read from a file, or over memory of the caller's that outlives it.
class Image {
public:
    static Image read(const std::string &path, bool keep_orientation = false) {
        janus_image *image = nullptr;
        detail::check(janus_image_read(path.c_str(), keep_orientation, &image));
        return Image(image);
    }
    static Image decode(std::string_view file, const char *name = nullptr, bool keep_orientation = false) {
        janus_image *image = nullptr;
        detail::check(janus_image_decode(file.data(), file.size(), name, keep_orientation, &image));
        return Image(image);
    }
    Image(std::uint32_t width, std::uint32_t height, const std::uint8_t *rgb, std::size_t stride = 0)
        : view_{sizeof(janus_image), width, height, stride, rgb} {}
    // A view: valid until the callback that got the picture returns.
    explicit Image(const Picture &picture) : Image(picture.width, picture.height, picture.rgb) {}

    const janus_image &get() const noexcept { return owned_ ? *owned_ : view_; }
    // A PNG in memory.
    std::string encode_png(const std::vector<std::pair<std::string, std::string>> &texts = {}) const {
        std::vector<const char *> keys, values;
        for (const auto &[key, value] : texts) keys.push_back(detail::c_string(key)), values.push_back(detail::c_string(value));
        std::string png;
        const auto keep = [](const void *data, std::size_t size, void *user) {
            try {
                static_cast<std::string *>(user)->assign(static_cast<const char *>(data), size);
                return 1;
            } catch (...) {
                return 0;
            }
        };
        detail::check(janus_image_encode_png(&get(), keys.data(), values.data(), keys.size(), keep, &png));
        return png;
    }
    void write_png(const std::string &path, const std::vector<std::pair<std::string, std::string>> &texts = {}) const {
        std::vector<const char *> keys, values;
        for (const auto &[key, value] : texts) keys.push_back(detail::c_string(key)), values.push_back(detail::c_string(value));
        detail::check(janus_image_write_png(&get(), path.c_str(), keys.data(), values.data(), keys.size()));
    }

private:
    explicit Image(janus_image *image) : owned_(image) {}
    janus_image view_{};
    detail::Owner<janus_image, janus_image_free> owned_;
};

// How JanusFlow's flow is integrated.
enum class Solver : janus_solver { euler = JANUS_SOLVER_EULER, ab2 = JANUS_SOLVER_AB2 };

// What janus_generate_options says, with the model's own settings where there is no number.
struct Drawing {
    std::vector<std::string> prompts;
    std::size_t n = 1;
    std::uint64_t seed = 0;
    std::size_t batch_size = 8;
    std::optional<double> cfg_weight, temperature;
    std::uint64_t top_k = 0;
    double top_p = 1;
    std::optional<Solver> solver;
    std::optional<int> steps;
    const Image *image = nullptr;
    std::optional<double> image_weight;
    const CancelToken *cancel = nullptr;
};

// What janus_ask_options says.
struct Question {
    std::string text;
    std::vector<const Image *> images;
    std::optional<int> max_tokens;
    double temperature = 0;
    std::uint64_t top_k = 0;
    double top_p = 1;
    std::uint64_t seed = 0;
    const CancelToken *cancel = nullptr;
};

namespace detail {

// The options of a question, and what they point to.
class AskOptions {
public:
    explicit AskOptions(const Question &question) {
        janus_ask_options_init(&options, sizeof options);
        for (const Image *image : question.images) images_.push_back(image ? &image->get() : nullptr);
        options.text = c_string(question.text);
        options.images = images_.data();
        options.num_images = images_.size();
        options.max_tokens = question.max_tokens.value_or(0);
        options.temperature = question.temperature;
        options.top_k = question.top_k;
        options.top_p = question.top_p;
        options.seed = question.seed;
        options.cancel = question.cancel ? question.cancel->get() : nullptr;
    }
    AskOptions(const AskOptions &) = delete;
    AskOptions &operator=(const AskOptions &) = delete;

    janus_ask_options options;

private:
    std::vector<const janus_image *> images_;
};

template <typename Ask, typename OnText> Answer ask(Ask call, const Question &question, OnText &on_text) {
    struct State {
        OnText &on_text;
        Guard guard;
    } state{on_text, {}};
    AskOptions asked(question);
    asked.options.user = &state;
    asked.options.on_text = [](const char *text, std::size_t size, const std::int32_t *, std::size_t, void *user) {
        State &own = *static_cast<State *>(user);
        return own.guard([&] { return goes_on(own.on_text, std::string_view(text, size)); });
    };
    Answer answer{};
    answer.struct_size = sizeof answer;
    state.guard.check(call(&asked.options, &answer));
    return answer;
}

} // namespace detail

class Model {
public:
    struct Options {
        std::string onnxruntime; // path of libonnxruntime.so; empty: see janus_open_options
        int num_threads = 0;
        bool disable_telemetry = false;
    };

    explicit Model(const std::string &bundle) : Model(bundle, Options{}) {}
    Model(const std::string &bundle, const Options &options) {
        janus_open_options given;
        janus_open_options_init(&given, sizeof given);
        given.bundle = bundle.c_str();
        given.onnxruntime = options.onnxruntime.empty() ? nullptr : options.onnxruntime.c_str();
        given.num_threads = options.num_threads;
        given.disable_telemetry = options.disable_telemetry;
        janus_model *model = nullptr;
        detail::check(janus_open(&given, &model));
        model_.reset(model);
    }

    Info info() const {
        Info info{};
        info.struct_size = sizeof info;
        detail::check(janus_model_info(model_.get(), &info));
        return info;
    }

    // Draws, and calls `on_picture(picture)` for each as soon as it is there, `on_step(step, total)` after each step.
    template <typename OnPicture, typename OnStep> void generate(const Drawing &drawing, OnPicture on_picture, OnStep on_step) {
        struct State {
            OnPicture &on_picture;
            OnStep &on_step;
            detail::Guard guard;
        } state{on_picture, on_step, {}};
        std::vector<const char *> prompts;
        for (const std::string &prompt : drawing.prompts) prompts.push_back(detail::c_string(prompt));
        janus_generate_options options;
        janus_generate_options_init(&options, sizeof options);
        options.prompts = prompts.data();
        options.num_prompts = prompts.size();
        options.n = drawing.n;
        options.seed = drawing.seed;
        options.batch_size = drawing.batch_size;
        options.cfg_weight = drawing.cfg_weight.value_or(std::nan(""));
        options.temperature = drawing.temperature.value_or(std::nan(""));
        options.top_k = drawing.top_k;
        options.top_p = drawing.top_p;
        options.solver = drawing.solver ? static_cast<janus_solver>(*drawing.solver) : JANUS_SOLVER_DEFAULT;
        options.steps = drawing.steps.value_or(0);
        options.image = drawing.image ? &drawing.image->get() : nullptr;
        options.image_weight = drawing.image_weight.value_or(std::nan(""));
        options.cancel = drawing.cancel ? drawing.cancel->get() : nullptr;
        options.user = &state;
        options.on_picture = [](const janus_picture *picture, void *user) {
            State &own = *static_cast<State *>(user);
            return own.guard([&] { return detail::goes_on(own.on_picture, *picture); });
        };
        options.on_step = [](std::size_t step, std::size_t total, void *user) {
            State &own = *static_cast<State *>(user);
            return own.guard([&] { return detail::goes_on(own.on_step, step, total); });
        };
        state.guard.check(janus_generate(model_.get(), &options));
    }
    template <typename OnPicture> void generate(const Drawing &drawing, OnPicture on_picture) {
        generate(drawing, std::move(on_picture), [](std::size_t, std::size_t) {});
    }

    // One question about pictures; `on_text(piece)` gets the answer as it comes.
    template <typename OnText> Answer describe(const Question &question, OnText on_text) {
        return detail::ask([this](auto *options, auto *answer) { return janus_describe(model_.get(), options, answer); }, question,
                           on_text);
    }
    std::string describe(const Question &question) {
        std::string text;
        describe(question, [&](std::string_view piece) { text += piece; });
        return text;
    }

    std::vector<std::int32_t> encode(const std::string &text) const {
        std::size_t count = 0;
        detail::check(janus_encode(model_.get(), detail::c_string(text), nullptr, &count));
        std::vector<std::int32_t> ids(count);
        detail::check(janus_encode(model_.get(), detail::c_string(text), ids.data(), &count));
        return ids;
    }

    janus_model *get() const noexcept { return model_.get(); }

private:
    detail::Owner<janus_model, janus_close> model_;
};

// A conversation, for one thread at a time. It may outlive its model.
class Chat {
public:
    explicit Chat(Model &model, int max_length = 0) {
        janus_chat *chat = nullptr;
        detail::check(janus_chat_open(model.get(), max_length, &chat));
        chat_.reset(chat);
    }
    template <typename OnText> Answer say(const Question &question, OnText on_text) {
        return detail::ask([this](auto *options, auto *answer) { return janus_chat_say(chat_.get(), options, answer); }, question, on_text);
    }
    std::string say(const Question &question) {
        std::string text;
        say(question, [&](std::string_view piece) { text += piece; });
        return text;
    }

private:
    detail::Owner<janus_chat, janus_chat_close> chat_;
};

} // namespace janus

#endif
