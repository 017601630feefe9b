#include "engines.h"

#include <chrono>
#include <cmath>
#include <future>

#include "error.h"

namespace janus {
namespace {

// The first ONNX Runtime that was tested with keys and values in int8.
constexpr int INT8_CACHE_MAJOR = 1, INT8_CACHE_MINOR = 31;

struct Ends {
    const char *embed, *ids, *head;
};

const Ends &ends_of(Modality modality) {
    static const Ends text{"text_embed", "text_ids", "text_head"}, image{"image_embed", "image_ids", "image_head"};
    return modality == Modality::text ? text : image;
}

bool is_finite_half(uint16_t bits) { return (bits & 0x7C00) != 0x7C00; }

bool all_finite(const Tensor &tensor) {
    const size_t count = count_numbers(tensor.shape());
    for (size_t i = 0; i < count; ++i) {
        if (tensor.dtype() == DType::float16 ? !is_finite_half(tensor.as<uint16_t>()[i]) : !std::isfinite(tensor.as<float>()[i]))
            return false;
    }
    return true;
}

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

} // namespace

Engines::Engines(const Bundle &bundle, std::shared_ptr<const OnnxRuntime> runtime, int num_threads)
    : bundle_(bundle), runtime_(std::move(runtime)), num_threads_(num_threads) {
    const Graph *decoder = bundle.manifest().find_graph("language_model.gqa");
    const bool int8_cache = decoder && decoder->cache && decoder->cache->dtype == DType::int8;
    if (int8_cache && !runtime_->is_at_least(INT8_CACHE_MAJOR, INT8_CACHE_MINOR)) {
        throw Error(JANUS_BACKEND, "the KV cache of " + bundle.path().string() +
                                       " is int8, which needs ONNX Runtime 1.31 or newer, and this is " + runtime_->version() +
                                       "; take a newer one, or export with --precision fp32");
    }
    for (const Graph &graph : bundle.manifest().graphs) slots_[graph.name];
}

const Engine &Engines::operator[](const std::string &name) {
    const Graph &graph = bundle_.graph(manifest().name_on_cpu(name));
    Slot &slot = slots_.at(graph.name);
    // A graph takes seconds to load; calls that need others go on.
    const std::lock_guard<std::mutex> lock(slot.opening);
    if (!slot.engine) slot.engine = std::make_unique<const Engine>(runtime_, bundle_, graph, num_threads_);
    return *slot.engine;
}

bool Engines::is_open(const std::string &name) {
    Slot &slot = slots_.at(bundle_.graph(manifest().name_on_cpu(name)).name);
    const std::lock_guard<std::mutex> lock(slot.opening);
    return slot.engine != nullptr;
}

double Engines::open(const std::vector<std::string> &names) {
    const Stopwatch watch;
    // Side by side: one core packs the weights of one graph.
    std::vector<std::future<void>> opening;
    opening.reserve(names.size());
    for (const std::string &name : names) {
        if (!is_open(name)) opening.push_back(std::async(std::launch::async, [this, &name] { (*this)[name]; }));
    }
    for (std::future<void> &each : opening) each.wait();
    for (std::future<void> &each : opening) each.get();
    return watch.ms();
}

Tensor Engines::embed(Modality modality, const Ids &ids) {
    const Engine &engine = (*this)[ends_of(modality).embed];
    const auto count = static_cast<int64_t>(ids.size());
    Tensor given(DType::int32, {1, count});
    std::copy(ids.begin(), ids.end(), given.as<int32_t>());
    Tensor embeds(engine.graph().activations, {count, manifest().language_model.hidden_size});
    engine.run({{ends_of(modality).ids, given.view()}}, {{"embeds", embeds.view().as_batch()}});
    return embeds;
}

Tensor Engines::predict(Modality modality, const Tensor &hidden, const std::string &when) {
    check_finite("language_model.gqa", hidden, when);
    const Engine &engine = (*this)[ends_of(modality).head];
    const int64_t num_ids = modality == Modality::text ? manifest().language_model.vocab_size : manifest().image_output.num_ids.value();
    Tensor logits(DType::float32, {hidden.shape()[0], num_ids});
    engine.run({{"hidden", hidden.view()}}, {{"logits", logits.view()}});
    check_finite(engine.graph().name, logits, when);
    return logits;
}

Tensor Engines::encode_image(const std::vector<float> &pixels) {
    const Engine &engine = (*this)["vision_encoder"];
    const ImageInput &input = manifest().image_input;
    Tensor features(engine.graph().activations, {input.num_tokens, manifest().language_model.hidden_size});
    const View given{DType::float32, {1, 3, input.size, input.size}, const_cast<float *>(pixels.data())};
    engine.run({{"pixels", given}}, {{"embeds", features.view().as_batch()}});
    check_finite(engine.graph().name, features, "");
    return features;
}

Tensor Engines::decode_picture(const Tensor &drawn) {
    const Engine &engine = (*this)["image_decoder"];
    const int64_t size = manifest().image_output.size;
    Tensor pixels(DType::float32, {3, size, size});
    // Its one input is image_ids, or JanusFlow's latents.
    engine.run({{engine.graph().inputs[0].first, drawn.view().as_batch()}}, {{"pixels", pixels.view().as_batch()}});
    return pixels;
}

void check_finite(const std::string &engine, const Tensor &tensor, const std::string &when) {
    if (!all_finite(tensor)) {
        throw Error(JANUS_NUMERICAL, engine + " gave NaN or Inf" + when +
                                         "; the weights overflow this precision or are damaged: run 'janus-rt verify', or export in fp32");
    }
}

Stopwatch::Stopwatch() : start_ns_(now_ns()) {}

double Stopwatch::ms() const { return static_cast<double>(now_ns() - start_ns_) / 1e6; }

} // namespace janus
