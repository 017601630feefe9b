// ONNX Runtime, opened at run time: nothing of it is linked, so that any version that is new enough will do.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bundle.h"
#include "janus/janus.h"
#include "run_stop.h"
#include "tensor.h"

struct OrtApi;
struct OrtEnv;
struct OrtIoBinding;
struct OrtMemoryInfo;
struct OrtSession;
struct OrtStatus;
struct OrtValue;

namespace janus {

class OnnxRuntime {
public:
    // The library at `path`; where it is empty, what JANUS_ONNXRUNTIME names, else one beside this library or in a Python package beside
    // it, else libonnxruntime.so.1 as the loader finds it. Each is opened once and stays until the process ends: its threads and its
    // destructors do not survive being unloaded. Throws Error (JANUS_BACKEND).
    static std::shared_ptr<const OnnxRuntime> open(std::string path);
    ~OnnxRuntime();
    OnnxRuntime(const OnnxRuntime &) = delete;
    OnnxRuntime &operator=(const OnnxRuntime &) = delete;

    const OrtApi &api() const { return *api_; }
    OrtEnv *environment() const { return environment_; }
    const OrtMemoryInfo *host_memory() const { return host_memory_; }
    const std::string &version() const { return version_; }
    bool is_at_least(int major, int minor) const;
    // Throws Error of `status` with what ONNX Runtime says, in one line between `before` and `after`.
    void check(OrtStatus *result, janus_status status, const std::string &before, const std::string &after = "") const;

private:
    explicit OnnxRuntime(const std::string &path);

    const OrtApi *api_ = nullptr;
    OrtEnv *environment_ = nullptr;
    OrtMemoryInfo *host_memory_ = nullptr;
    std::string version_;
};

// Tensors by name.
using Named = std::vector<std::pair<std::string, View>>;

class Engine;

// A run of an engine over tensors in place; those that are bound stay bound for the next run. Belongs to one thread at a time.
class Binding {
public:
    explicit Binding(const Engine &engine);
    ~Binding();
    Binding(Binding &&other) noexcept : engine_(other.engine_), binding_(std::exchange(other.binding_, nullptr)) {}
    Binding(const Binding &) = delete;
    Binding &operator=(const Binding &) = delete;

    void bind_input(const std::string &name, const View &view);
    void bind_output(const std::string &name, const View &view);
    // Throws Error (JANUS_BACKEND, JANUS_OUT_OF_MEMORY).
    void run();
    // The same, unless `stop` ends it first -> whether it came to its end.
    bool run_unless(RunStop &stop);

private:
    const Engine &engine_;
    OrtIoBinding *binding_ = nullptr;
};

// One graph on the CPU. Any number of threads may run it at once, each through a binding of its own.
class Engine {
public:
    // Throws Error (JANUS_BUNDLE).
    Engine(std::shared_ptr<const OnnxRuntime> runtime, const Bundle &bundle, const Graph &graph, int num_threads);
    ~Engine();
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    void run(const Named &inputs, const Named &outputs) const;
    // -> whether it came to its end, and was not ended by `stop`.
    bool run_unless(RunStop &stop, const Named &inputs, const Named &outputs) const;
    const Graph &graph() const { return graph_; }

private:
    friend class Binding;
    Binding bind(const Named &inputs, const Named &outputs) const;

    std::shared_ptr<const OnnxRuntime> runtime_;
    const Graph &graph_;
    OrtSession *session_ = nullptr;
};

} // namespace janus
