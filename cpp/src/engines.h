// The engines of one bundle, opened when first used, and what all of drawing and answering do with them.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "onnxruntime.h"

namespace janus {

using Ids = std::vector<int32_t>;

enum class Modality { text, image };

// Any number of threads may use it.
class Engines {
public:
    // Throws Error (JANUS_BACKEND) where this ONNX Runtime cannot run the bundle.
    Engines(const Bundle &bundle, std::shared_ptr<const OnnxRuntime> runtime, int num_threads);

    // The graph called `name`, in the form for CPUs if there is one.
    const Engine &operator[](const std::string &name);
    const Bundle &bundle() const { return bundle_; }
    const Manifest &manifest() const { return bundle_.manifest(); }
    std::string description() const { return "ONNX Runtime " + runtime_->version() + " on the CPU"; }
    bool is_open(const std::string &name);
    // Opens these graphs -> ms it took.
    double open(const std::vector<std::string> &names);

    // Ids [T] -> embeddings [T, D].
    Tensor embed(Modality modality, const Ids &ids);
    // Hidden states [k, D] -> logits [k, V]. Throws Error (JANUS_NUMERICAL) if hidden states or logits are NaN or infinite; `when` says
    // when.
    Tensor predict(Modality modality, const Tensor &hidden, const std::string &when);
    // Pixels [3, size, size] -> features [tokens, D]. Throws Error (JANUS_NUMERICAL): an int8 cache would hide it.
    Tensor encode_image(const std::vector<float> &pixels);
    // Ids [tokens] or latents [c, s, s] of a picture -> pixels [3, size, size].
    Tensor decode_picture(const Tensor &drawn);

private:
    struct Slot {
        std::mutex opening;
        std::unique_ptr<const Engine> engine;
    };
    const Bundle &bundle_;
    std::shared_ptr<const OnnxRuntime> runtime_;
    const int num_threads_;
    std::map<std::string, Slot> slots_;
};

// Throws Error (JANUS_NUMERICAL) if a number is NaN or infinite.
void check_finite(const std::string &engine, const Tensor &tensor, const std::string &when);

// Milliseconds since it was made.
class Stopwatch {
public:
    Stopwatch();
    double ms() const;

private:
    int64_t start_ns_;
};

} // namespace janus
