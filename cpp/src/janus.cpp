// The C interface: arguments in, calls of the core, statuses out. See janus.h.
#include "janus/janus.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>

#include "answering.h"
#include "drawing.h"
#include "guard.h"
#include "image_argument.h"
#include "python_repr.h"

using namespace janus;

namespace {

// What a model and its chats share.
struct OpenModel {
    OpenModel(const std::string &path, const std::string &library, int num_threads)
        : bundle(path), engines(bundle, OnnxRuntime::open(library), num_threads), prompter(bundle), drawer(make_drawer(engines, prompter)),
          description(engines.description()) {}

    // Throws Error (JANUS_BUNDLE).
    void require(const char *task) const {
        if (bundle.manifest().has_task(task)) return;
        throw Error(JANUS_BUNDLE, bundle.path().string() + " was exported for " + join(bundle.manifest().tasks, " and ") +
                                      " only, not for " + task + "; export again without --only");
    }

    Bundle bundle;
    Engines engines;
    Prompter prompter;
    std::unique_ptr<Drawer> drawer;
    std::string description;
};

} // namespace

struct janus_model {
    std::shared_ptr<OpenModel> open;
};

// Keeps what it needs of a model that is closed before it.
struct janus_chat {
    std::shared_ptr<OpenModel> open;
    Conversation conversation;
    bool is_answering = false;
};

namespace {

constexpr int32_t MAX_THREADS = 1024;
constexpr double OF_THE_MODEL = std::numeric_limits<double>::quiet_NaN();

std::optional<double> given(double number) { return std::isnan(number) ? std::nullopt : std::optional(number); }
std::optional<int> given(int32_t number) { return number ? std::optional<int>(number) : std::nullopt; }

std::optional<FlowSolver> given_solver(janus_solver solver) {
    if (solver < JANUS_SOLVER_DEFAULT || solver > JANUS_SOLVER_AB2) {
        throw Error(JANUS_VALUE, "solver is " + std::to_string(solver) + "; expected a janus_solver, 0 to 2");
    }
    if (solver == JANUS_SOLVER_DEFAULT) return std::nullopt;
    return solver == JANUS_SOLVER_AB2 ? FlowSolver::ab2 : FlowSolver::euler;
}

uint64_t check_seed(uint64_t seed, size_t count) {
    if (count && seed > std::numeric_limits<uint64_t>::max() - (count - 1)) {
        throw Error(JANUS_VALUE, "seed is " + std::to_string(seed) + "; expected 0 to 2^64 - " + std::to_string(count));
    }
    return seed;
}

DrawRequest read_request(const OpenModel &model, const janus_generate_options &options) {
    if (!options.num_prompts || !options.n || !options.batch_size) {
        throw Error(JANUS_VALUE, "got " + std::to_string(options.num_prompts) + " prompts, n " + std::to_string(options.n) +
                                     ", batch_size " + std::to_string(options.batch_size) + "; expected 1 or more of each");
    }
    // Pictures and steps are counted in 64 bits.
    if (options.n > (size_t{1} << 40) / options.num_prompts) {
        throw Error(JANUS_VALUE, "n is " + std::to_string(options.n) + "; expected at most 2^40 pictures in all");
    }
    DrawRequest request;
    for (size_t i = 0; i < options.num_prompts; ++i)
        request.prompts.emplace_back(require(require(options.prompts, "prompts")[i], "a prompt"));
    const Manifest &manifest = model.bundle.manifest();
    if (options.image) {
        model.require("understanding");
        request.pixels = preprocess(read_image(options.image), manifest.image_input);
    }
    const AskedSettings asked{
        given(options.cfg_weight),    given(options.temperature), given(options.image_weight), options.top_k, options.top_p,
        given_solver(options.solver), given(options.steps)};
    request.settings = make_settings(manifest, asked, options.image != nullptr);
    request.n = options.n;
    request.seed = check_seed(options.seed, options.n);
    request.batch_size = options.batch_size;
    return request;
}

janus_picture make_picture(const DrawnPicture &drawn) {
    janus_picture picture{};
    picture.struct_size = sizeof picture;
    picture.number = drawn.job.number;
    picture.prompt = drawn.job.prompt;
    picture.seed = drawn.job.seed;
    picture.width = drawn.rgb.width;
    picture.height = drawn.rgb.height;
    picture.rgb = drawn.rgb.bytes.data();
    const size_t count = count_numbers(drawn.drawn.shape());
    if (drawn.drawn.dtype() == DType::int32) {
        picture.image_ids = drawn.drawn.as<int32_t>();
        picture.num_image_ids = count;
    } else {
        picture.latents = drawn.drawn.as<float>();
        picture.num_latents = count;
    }
    picture.load_ms = drawn.load_ms;
    picture.encode_ms = drawn.encode_ms;
    picture.prefill_ms = drawn.prefill_ms;
    picture.steps_ms = drawn.steps_ms;
    picture.decode_ms = drawn.decode_ms;
    return picture;
}

AskRequest read_ask(const OpenModel &model, const janus_ask_options &options) {
    AskRequest request;
    request.text = require(options.text, "text");
    if (options.num_images) require(options.images, "images");
    for (size_t i = 0; i < options.num_images; ++i) {
        request.pixels.push_back(preprocess(read_image(options.images[i]), model.bundle.manifest().image_input));
    }
    request.max_tokens = given(options.max_tokens);
    request.sampler = {options.temperature, options.top_k, options.top_p};
    request.seed = options.seed;
    return request;
}

OnText make_on_text(const janus_ask_options &options) {
    return [&options](std::string_view text, const Ids &ids) {
        return !options.on_text || options.on_text(std::string(text).c_str(), text.size(), ids.data(), ids.size(), options.user);
    };
}

// Before minutes of work, not after.
void check_answer(const janus_answer *answer) {
    if (answer) check_struct(answer, "janus_answer");
}

void write_answer(const AnswerReport &report, janus_answer *answer) {
    if (!answer) return;
    janus_answer ours{};
    ours.stop = report.by_limit ? JANUS_STOP_LENGTH : JANUS_STOP_EOS;
    ours.num_tokens = report.num_tokens;
    ours.load_ms = report.load_ms;
    ours.encode_ms = report.encode_ms;
    ours.prefill_ms = report.prefill_ms;
    ours.steps_ms = report.steps_ms;
    write_struct(ours, answer);
}

// Copies as much as there is room for: all, or nothing of a text. `*count` becomes what there is.
template <typename Item, typename Items> void write_items(const Items &items, Item *target, size_t *count) {
    const size_t room = *require(count, "count");
    *count = items.size();
    if (target && room >= items.size()) std::copy(items.begin(), items.end(), target);
}

} // namespace

extern "C" {

const char *janus_version(void) { return JANUS_VERSION; }

uint32_t janus_abi_version(void) { return JANUS_ABI_VERSION; }

const char *janus_status_name(janus_status status) {
    static const char *const names[] = {
        "ok", "error", "value", "bundle", "backend", "out_of_memory", "prompt", "conversation_full", "image", "numerical", "cancelled"};
    return status >= 0 && status <= JANUS_CANCELLED ? names[status] : "unknown";
}

const char *janus_message(void) { return get_message(); }

void janus_open_options_init(janus_open_options *options, size_t struct_size) { clear_struct(options, struct_size); }

janus_status janus_open(const janus_open_options *options, janus_model **model) {
    return guard([&] {
        *require(model, "model") = nullptr;
        const janus_open_options ours = read_struct(options, janus_open_options_init, "janus_open_options");
        if (ours.num_threads < 0 || ours.num_threads > MAX_THREADS) {
            throw Error(JANUS_VALUE, "num_threads is " + std::to_string(ours.num_threads) + "; expected 0 (all cores) to 1024");
        }
        if (ours.disable_telemetry) setenv("ORT_DISABLE_TELEMETRY", "1", 0);
        const auto open =
            std::make_shared<OpenModel>(require(ours.bundle, "bundle"), ours.onnxruntime ? ours.onnxruntime : "", ours.num_threads);
        *model = new janus_model{open};
    });
}

void janus_close(janus_model *model) { delete model; }

janus_status janus_model_info(const janus_model *model, janus_info *info) {
    return guard([&] {
        const Manifest &manifest = require(model, "model")->open->bundle.manifest();
        check_struct(info, "janus_info");
        janus_info ours{};
        ours.name = manifest.name.c_str();
        ours.family = manifest.family.c_str();
        ours.precision = manifest.precision.c_str();
        ours.backend = model->open->description.c_str();
        ours.generates = manifest.has_task("generation");
        ours.understands = manifest.has_task("understanding");
        ours.random_weights = manifest.random_weights;
        ours.picture_size = manifest.image_output.size;
        ours.num_image_ids = manifest.image_output.num_ids ? manifest.image_output.num_tokens : 0;
        ours.max_length = manifest.language_model.max_length;
        ours.steps = manifest.flow ? manifest.flow->euler.steps : 0;
        ours.max_tokens = manifest.defaults.max_tokens;
        ours.cfg_weight = manifest.defaults.cfg_weight;
        ours.temperature = manifest.defaults.temperature;
        ours.ab2_steps = manifest.flow ? manifest.flow->ab2.steps : 0;
        ours.ab2_shift = manifest.flow ? manifest.flow->ab2.shift : 0;
        ours.euler_shift = manifest.flow ? manifest.flow->euler.shift : 0;
        write_struct(ours, info);
    });
}

janus_status janus_cancel_token_create(janus_cancel_token **token) {
    return guard([&] { *require(token, "token") = new janus_cancel_token; });
}

void janus_cancel(janus_cancel_token *token) {
    if (token) token->is_set.store(true, std::memory_order_relaxed);
}

void janus_cancel_token_destroy(janus_cancel_token *token) { delete token; }

void janus_generate_options_init(janus_generate_options *options, size_t struct_size) {
    clear_struct(options, struct_size);
    if (!options) return;
    janus_generate_options ours{};
    ours.n = 1;
    ours.batch_size = 8;
    ours.cfg_weight = ours.temperature = ours.image_weight = OF_THE_MODEL;
    ours.top_p = 1;
    write_struct(ours, options);
}

janus_status janus_generate(janus_model *model, const janus_generate_options *options) {
    return guard([&] {
        require(model, "model")->open->require("generation");
        const janus_generate_options ours = read_struct(options, janus_generate_options_init, "janus_generate_options");
        require(ours.on_picture, "on_picture");
        const DrawRequest request = read_request(*model->open, ours);
        draw_pictures(
            model->open->engines, model->open->prompter, *model->open->drawer, request, ours.cancel,
            [&](size_t step, size_t total) { return !ours.on_step || ours.on_step(step, total, ours.user); },
            [&](const DrawnPicture &drawn) {
                const janus_picture picture = make_picture(drawn);
                return ours.on_picture(&picture, ours.user) != 0;
            });
    });
}

void janus_ask_options_init(janus_ask_options *options, size_t struct_size) {
    clear_struct(options, struct_size);
    if (!options) return;
    janus_ask_options ours{};
    ours.top_p = 1;
    write_struct(ours, options);
}

janus_status janus_describe(janus_model *model, const janus_ask_options *options, janus_answer *answer) {
    return guard([&] {
        require(model, "model")->open->require("understanding");
        const janus_ask_options ours = read_struct(options, janus_ask_options_init, "janus_ask_options");
        check_answer(answer);
        if (!ours.num_images) throw Error(JANUS_VALUE, "describe got no picture; expected at least one");
        write_answer(describe(model->open->engines, model->open->prompter, read_ask(*model->open, ours), ours.cancel, make_on_text(ours)),
                     answer);
    });
}

janus_status janus_chat_open(janus_model *model, int32_t max_length, janus_chat **chat) {
    return guard([&] {
        *require(chat, "chat") = nullptr;
        require(model, "model")->open->require("understanding");
        const int limit = model->open->bundle.manifest().language_model.max_length, length = max_length ? max_length : limit;
        if (length < 2 || length > limit) {
            throw Error(JANUS_VALUE, "max_length is " + std::to_string(length) + "; expected 2 to " + std::to_string(limit));
        }
        *chat = new janus_chat{model->open, Conversation(model->open->engines, model->open->prompter, length)};
    });
}

janus_status janus_chat_say(janus_chat *chat, const janus_ask_options *options, janus_answer *answer) {
    return guard([&] {
        const janus_ask_options ours = read_struct(options, janus_ask_options_init, "janus_ask_options");
        check_answer(answer);
        if (require(chat, "chat")->is_answering) {
            throw Error(JANUS_VALUE, "this chat is answering already; expected one call at a time, and none from its own callback");
        }
        const AskRequest request = read_ask(*chat->open, ours);
        struct Answering {
            explicit Answering(bool &flag) : is_answering(flag) { is_answering = true; }
            ~Answering() { is_answering = false; }
            bool &is_answering;
        } const answering(chat->is_answering);
        write_answer(chat->conversation.say(request, ours.cancel, make_on_text(ours)), answer);
    });
}

void janus_chat_close(janus_chat *chat) { delete chat; }

janus_status janus_encode(const janus_model *model, const char *text, int32_t *ids, size_t *count) {
    return guard([&] { write_items(require(model, "model")->open->prompter.tokenizer().encode(require(text, "text")), ids, count); });
}

janus_status janus_decode(const janus_model *model, const int32_t *ids, size_t count, char *text, size_t *size) {
    return guard([&] {
        const Ids all = count ? Ids(require(ids, "ids"), ids + count) : Ids();
        std::string decoded = require(model, "model")->open->prompter.tokenizer().decode(all);
        decoded.push_back('\0');
        write_items(decoded, text, size);
    });
}

janus_status janus_preprocess(const janus_model *model, const janus_image *image, float *pixels, size_t *count) {
    return guard(
        [&] { write_items(preprocess(read_image(image), require(model, "model")->open->bundle.manifest().image_input), pixels, count); });
}

} // extern "C"
