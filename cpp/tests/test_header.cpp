// janus.hpp over the scripted ONNX Runtime.
#include <doctest/doctest.h>

#include <janus/janus.hpp>
#include <memory>
#include <stdexcept>

namespace {

janus::Model open_model() {
    janus::Model::Options options;
    options.onnxruntime = JANUS_SCRIPTED;
    return janus::Model(JANUS_NANO_BUNDLE, options);
}

janus_status status_of(const std::function<void()> &call) {
    try {
        call();
    } catch (const janus::Exception &error) {
        return error.status();
    }
    return JANUS_OK;
}

} // namespace

TEST_CASE("a drawing through the header, stopped by false and by an exception") {
    janus::Model model = open_model();
    janus::Drawing drawing;
    drawing.prompts = {"a red circle", "a blue cross"};
    drawing.n = 2;
    std::vector<std::uint64_t> seeds;
    model.generate(drawing, [&](const janus::Picture &picture) { seeds.push_back(picture.seed); });
    CHECK(seeds == std::vector<std::uint64_t>{0, 1, 0, 1});
    const auto ignore = [](const janus::Picture &) {};
    CHECK(status_of([&] { model.generate(drawing, ignore, [](std::size_t step, std::size_t) { return step < 3; }); }) == JANUS_CANCELLED);
    CHECK_THROWS_AS(model.generate(drawing, [](const janus::Picture &) { throw std::out_of_range("mine"); }), std::out_of_range);
    janus::CancelToken token;
    token.cancel();
    drawing.cancel = &token;
    CHECK(status_of([&] { model.generate(drawing, ignore); }) == JANUS_CANCELLED);
}

TEST_CASE("a chat outlives its model, and refuses to be used from its own callback") {
    auto model = std::make_unique<janus::Model>(open_model());
    janus::Chat chat(*model);
    model.reset();
    janus::Question question;
    question.text = "What is this?";
    question.temperature = 1;
    question.max_tokens = 20;
    janus_status inner = JANUS_OK;
    chat.say(question, [&](std::string_view) { inner = status_of([&] { chat.say(question); }); });
    CHECK(inner == JANUS_VALUE);
    CHECK(status_of([&] { chat.say(question); }) == JANUS_OK);
}

TEST_CASE("a zero byte in a text, a picture that is not there") {
    janus::Model model = open_model();
    janus::Drawing drawing;
    drawing.prompts = {std::string("a red\0circle", 12)};
    CHECK(status_of([&] { model.generate(drawing, [](const janus::Picture &) {}); }) == JANUS_PROMPT);
    CHECK(status_of([&] { model.encode(std::string(1, '\0')); }) == JANUS_PROMPT);
    janus::Question question;
    question.text = "What is this?";
    question.images = {nullptr};
    CHECK(status_of([&] { model.describe(question); }) == JANUS_VALUE);
}

TEST_CASE("a PNG in memory is the file's") {
    const std::uint8_t rgb[] = {255, 0, 0, 0, 255, 0};
    const janus::Image image(2, 1, rgb);
    const std::string png = image.encode_png({{"prompt", "two"}});
    CHECK(png.substr(1, 3) == "PNG");
    const janus::Image again = janus::Image::decode(png);
    CHECK(again.get().width == 2);
    CHECK(std::vector<std::uint8_t>(again.get().rgb, again.get().rgb + 6) == std::vector<std::uint8_t>(rgb, rgb + 6));
    CHECK(status_of([&] {
              const auto refuse = [](const void *, std::size_t, void *) { return 0; };
              if (const janus_status status = janus_image_encode_png(&image.get(), nullptr, nullptr, 0, refuse, nullptr);
                  status != JANUS_OK)
                  throw janus::Exception(status, janus_message());
          }) == JANUS_CANCELLED);
}

TEST_CASE("sizes of structs that no version has") {
    janus::Model model = open_model();
    for (const std::size_t size : {std::size_t{0}, std::size_t{12}, std::size_t{1} << 20}) {
        janus_info info{};
        info.struct_size = size;
        CHECK(janus_model_info(model.get(), &info) == JANUS_VALUE);
        janus_open_options options;
        janus_open_options_init(&options, sizeof options);
        options.struct_size = size;
        janus_model *none = nullptr;
        CHECK(janus_open(&options, &none) == JANUS_VALUE);
    }
    janus_open_options_init(nullptr, sizeof(janus_open_options));
    janus_generate_options_init(nullptr, sizeof(janus_generate_options));
    janus_ask_options_init(nullptr, sizeof(janus_ask_options));
    janus::Model::Options options;
    options.num_threads = 2000;
    CHECK(status_of([&] { janus::Model(JANUS_NANO_BUNDLE, options); }) == JANUS_VALUE);
}
