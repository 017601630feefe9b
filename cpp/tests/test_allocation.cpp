// Every allocation of ours fails once, in turn: each ends in JANUS_OUT_OF_MEMORY, and the next call is right. JANUS_TEST_FULL tries all of
// them, otherwise some. Built with -Wl,--wrap=calloc.
#include <dlfcn.h>

#include <atomic>
#include <new>

#include "scripted_model.h"

namespace {

// Allocations of this program until the one that fails; below zero none does.
std::atomic<long> countdown{-1};

// The scripted ONNX Runtime is another's code, and may not be failed.
bool is_ours(const void *caller) {
    Dl_info info{}, own{};
    return dladdr(caller, &info) && dladdr(reinterpret_cast<const void *>(&is_ours), &own) && info.dli_fbase == own.dli_fbase;
}

bool fails(const void *caller) {
    return countdown.load(std::memory_order_relaxed) >= 0 && is_ours(caller) && countdown.fetch_sub(1, std::memory_order_relaxed) == 0;
}

void *allocate(size_t size, const void *caller) {
    if (fails(caller)) throw std::bad_alloc();
    if (void *memory = std::malloc(size + !size)) return memory;
    throw std::bad_alloc();
}

} // namespace

void *operator new(size_t size) { return allocate(size, __builtin_return_address(0)); }
void *operator new[](size_t size) { return allocate(size, __builtin_return_address(0)); }
void *operator new(size_t size, const std::nothrow_t &) noexcept {
    return fails(__builtin_return_address(0)) ? nullptr : std::malloc(size + !size);
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete[](void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, size_t) noexcept { std::free(memory); }
void operator delete[](void *memory, size_t) noexcept { std::free(memory); }
void operator delete(void *memory, const std::nothrow_t &) noexcept { std::free(memory); }

extern "C" {
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size) { return fails(__builtin_return_address(0)) ? nullptr : __real_calloc(count, size); }
}

namespace {

janus_status open_and_close() {
    janus_open_options options;
    janus_open_options_init(&options, sizeof options);
    options.bundle = JANUS_NANO_BUNDLE;
    options.onnxruntime = JANUS_SCRIPTED;
    janus_model *model = nullptr;
    const janus_status status = janus_open(&options, &model);
    CHECK((status == JANUS_OK) == (model != nullptr));
    janus_close(model);
    return status;
}

// Fails allocation after allocation of `call`, with growing steps beyond the first ones, until it gets through.
template <typename Call> void fail_each(Call call) {
    const bool all = std::getenv("JANUS_TEST_FULL") != nullptr;
    long failed = 0;
    for (long place = 0;; place += all || place < 100 ? 1 : place / 20) {
        countdown = place;
        const janus_status status = call();
        const bool got_there = countdown.exchange(-1) < 0;
        if (!got_there) break;
        ++failed;
        const std::string message = janus_message();
        CHECK_MESSAGE((status == JANUS_OK || status == JANUS_OUT_OF_MEMORY), message);
        CHECK(call() == JANUS_OK);
    }
    MESSAGE(failed << " allocations failed");
    CHECK(failed > 50);
}

} // namespace

TEST_CASE("allocations that fail while a model is opened") { fail_each(open_and_close); }

// Nothing but calls of the interface: an allocation of the test itself must not fail.
TEST_CASE("allocations that fail while a picture is drawn and a question answered") {
    scripted::Model model;
    const char *prompts[] = {"a red circle"};
    janus_generate_options drawing;
    janus_generate_options_init(&drawing, sizeof drawing);
    drawing.prompts = prompts;
    drawing.num_prompts = 1;
    drawing.on_picture = [](const janus_picture *, void *) { return 1; };
    drawing.on_step = [](size_t step, size_t, void *) { return step < 3 ? 1 : 0; };
    fail_each([&] {
        const janus_status status = janus_generate(model.handle, &drawing);
        return status == JANUS_CANCELLED ? JANUS_OK : status;
    });

    const std::vector<uint8_t> pixels = scripted::make_pixels(20, 30);
    const janus_image image{sizeof image, 20, 30, 0, pixels.data()};
    const janus_image *images[] = {&image};
    janus_ask_options question;
    janus_ask_options_init(&question, sizeof question);
    question.text = "What is this?";
    question.images = images;
    question.num_images = 1;
    question.max_tokens = 3;
    fail_each([&] { return janus_describe(model.handle, &question, nullptr); });
}
