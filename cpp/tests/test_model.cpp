// Drawing and answering over the scripted ONNX Runtime.
#include <atomic>
#include <thread>

#include "scripted_model.h"

using scripted::Fault;
using scripted::Ids;
using scripted::Model;
using scripted::Said;

namespace {

std::vector<Ids> draw(Model &model, const std::vector<const char *> &prompts, size_t n, size_t batch_size, uint64_t seed = 3) {
    std::vector<Ids> pictures;
    const janus_status status = model.generate(prompts, pictures, [&](janus_generate_options &options) {
        options.n = n;
        options.batch_size = batch_size;
        options.seed = seed;
    });
    REQUIRE_MESSAGE(status == JANUS_OK, janus_message());
    return pictures;
}

bool message_holds(const char *part) { return std::string(janus_message()).find(part) != std::string::npos; }

} // namespace

TEST_CASE("pictures come in order, one for each seed, and the same seed draws the same") {
    Model model;
    const std::vector<Ids> pictures = draw(model, {"a red circle", "a blue cross"}, 3, 4);
    REQUIRE(pictures.size() == 6);
    for (size_t i = 0; i < pictures.size(); ++i) {
        for (size_t k = 0; k < i; ++k) CHECK(pictures[i] != pictures[k]);
    }
    CHECK(draw(model, {"a red circle", "a blue cross"}, 3, 4) == pictures);
}

TEST_CASE("NaN, a failed run and too little memory are errors of the call, and the next call is right") {
    Model model;
    const std::vector<Ids> expected = draw(model, {"a red circle"}, 1, 8);
    const struct {
        const char *fault;
        janus_status status;
        const char *message;
    } cases[] = {
        {"language_model.gqa:100", JANUS_NUMERICAL, "language_model.gqa gave NaN or Inf after"},
        {"image_head:100", JANUS_NUMERICAL, "image_head gave NaN or Inf after"},
        {"image_head:100:fail", JANUS_BACKEND, "image_head failed: scripted: the run failed"},
        {"image_embed:80:fail", JANUS_BACKEND, "image_embed failed: "},
        {"text_embed:3:memory", JANUS_OUT_OF_MEMORY, "allocate memory"},
        {"image_decoder:2:fail", JANUS_BACKEND, "image_decoder failed: "},
    };
    for (const auto &[fault, status, message] : cases) {
        CAPTURE(fault);
        Model another;
        draw(another, {"a red circle"}, 1, 8);
        {
            const Fault set(fault);
            std::vector<Ids> pictures;
            CHECK(another.generate({"a red circle"}, pictures, [](janus_generate_options &options) { options.seed = 3; }) == status);
            CHECK(message_holds(message));
            CHECK(!message_holds("\n"));
        }
        CHECK(draw(another, {"a red circle"}, 1, 8) == expected);
    }
    const Fault set("text_embed.onnx:0:fail");
    Model damaged;
    std::vector<Ids> pictures;
    CHECK(damaged.generate({"a red circle"}, pictures) == JANUS_BUNDLE);
    CHECK(message_holds("cannot be opened: scripted: the file is damaged; run 'janus-rt verify'"));
}

TEST_CASE("a callback stops, and one that throws does not get through") {
    Model model;
    std::vector<Ids> pictures;
    CHECK(model.generate({"a red circle"}, pictures, [](janus_generate_options &options) {
        options.on_step = [](size_t step, size_t, void *) { return step < 5 ? 1 : 0; };
    }) == JANUS_CANCELLED);
    CHECK(message_holds("cancelled after 5 of 64 steps"));
    CHECK(model.generate({"a red circle"}, pictures, [](janus_generate_options &options) {
        options.on_step = [](size_t, size_t, void *) -> int { throw 3; };
    }) == JANUS_ERROR);
    CHECK(message_holds("a callback threw an exception"));
}

TEST_CASE("cancelled from another thread") {
    Model model;
    janus_cancel_token *token = nullptr;
    REQUIRE(janus_cancel_token_create(&token) == JANUS_OK);
    std::thread other([&] { janus_cancel(token); });
    std::vector<Ids> pictures;
    CHECK(model.generate({"a red circle"}, pictures, [&](janus_generate_options &options) {
        options.n = 100'000;
        options.cancel = token;
    }) == JANUS_CANCELLED);
    other.join();
    janus_cancel_token_destroy(token);
}

TEST_CASE("threads that draw, ask and chat at once get what they get alone") {
    Model model;
    const std::vector<Ids> expected = draw(model, {"a red circle"}, 2, 8);
    Said alone;
    REQUIRE(scripted::ask(model.handle, nullptr, "What is this?", alone) == JANUS_OK);
    std::atomic<int> right{0};
    std::vector<std::thread> threads;
    Model shared; // whose graphs are opened by whoever comes first
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
            std::vector<Ids> pictures;
            Said said;
            janus_chat *chat = nullptr;
            if (i % 2) {
                right += shared.generate({"a red circle"}, pictures,
                                         [](janus_generate_options &options) { options.n = 2, options.seed = 3; }) == JANUS_OK &&
                         pictures == expected;
            } else {
                right += janus_chat_open(shared.handle, 0, &chat) == JANUS_OK &&
                         scripted::ask(nullptr, chat, "What is this?", said) == JANUS_OK && said.ids == alone.ids;
                janus_chat_close(chat);
            }
        });
    }
    for (std::thread &thread : threads) thread.join();
    CHECK(right == 8);
}

TEST_CASE("a conversation goes on after an answer that failed") {
    Model model;
    janus_chat *chat = nullptr;
    REQUIRE(janus_chat_open(model.handle, 0, &chat) == JANUS_OK);
    Said said;
    {
        const Fault set("text_head:4");
        CHECK(scripted::ask(nullptr, chat, "What is this?", said) == JANUS_NUMERICAL);
        CHECK(said.ids.size() <= 3); // the last ones may be parts of a character
    }
    CHECK(scripted::ask(nullptr, chat, "And now?", said) == JANUS_OK);
    CHECK(said.answer.num_tokens > 0);
    janus_chat_close(chat);
}

TEST_CASE("a conversation that is full says so and stays as it was") {
    Model model;
    janus_chat *chat = nullptr;
    REQUIRE(janus_chat_open(model.handle, 120, &chat) == JANUS_OK);
    Said said;
    janus_status status = JANUS_OK;
    for (int turn = 0; turn < 100 && status == JANUS_OK; ++turn) status = scripted::ask(nullptr, chat, "What is this?", said);
    CHECK(status == JANUS_CONVERSATION_FULL);
    CHECK(message_holds("the limit is 120"));
    janus_chat_close(chat);
    CHECK(janus_chat_open(model.handle, 1, &chat) == JANUS_VALUE);
    CHECK(chat == nullptr);
}

TEST_CASE("messages belong to the thread whose call failed") {
    Model model;
    std::vector<Ids> pictures;
    CHECK(model.generate({" "}, pictures) == JANUS_PROMPT);
    std::thread other([] { CHECK(janus_open(nullptr, nullptr) == JANUS_VALUE); });
    other.join();
    CHECK(message_holds("the prompt is empty"));
}
