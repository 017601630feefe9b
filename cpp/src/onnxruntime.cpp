#include "onnxruntime.h"

#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <mutex>
#include <utility>

#include "error.h"
#include "huge_pages.h"
#include "processor.h"

namespace janus {
namespace {

// ONNX Runtime 1.20. Nothing here needs more; newer libraries answer to all older numbers.
constexpr uint32_t API_VERSION = 20;
static_assert(ORT_API_VERSION >= API_VERSION, "ONNX Runtime's headers must be of 1.20 or newer");

ONNXTensorElementDataType element_type(DType dtype) {
    switch (dtype) {
    case DType::float32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case DType::float16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case DType::int64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    case DType::int32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    case DType::int8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
    default: return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
    }
}

// Releases what ONNX Runtime made, wherever the scope is left.
template <typename Part> class Scoped {
public:
    using Release = void(ORT_API_CALL *)(Part *);
    explicit Scoped(Release free) : release_(free) {}
    ~Scoped() { release_(part_); }
    Scoped(const Scoped &) = delete;
    Scoped &operator=(const Scoped &) = delete;
    Part **out() { return &part_; }
    Part *get() const { return part_; }
    Part *release() { return std::exchange(part_, nullptr); }

private:
    Release release_;
    Part *part_ = nullptr;
};

bool is_out_of_memory(std::string text) {
    for (char &letter : text) letter = static_cast<char>(letter >= 'A' && letter <= 'Z' ? letter + 32 : letter);
    for (const char *words : {"out of memory", "outofmemory", "out_of_memory", "allocate memory", "bad_alloc"}) {
        if (text.find(words) != text.npos) return true;
    }
    return false;
}

// Beside this library, or in Python's package where it lies among Python's packages; else what the loader finds.
std::string find_library() {
    Dl_info own{};
    if (!dladdr(reinterpret_cast<const void *>(&find_library), &own) || !own.dli_fname) return "libonnxruntime.so.1";
    const std::filesystem::path folder = std::filesystem::path(own.dli_fname).parent_path();
    std::error_code error;
    for (const std::filesystem::path &place : {folder, folder / "onnxruntime/capi", folder / "../onnxruntime/capi"}) {
        for (const auto &entry : std::filesystem::directory_iterator(place, error)) {
            if (entry.path().filename().string().rfind("libonnxruntime.so.", 0) == 0) return entry.path().string();
        }
    }
    return "libonnxruntime.so.1";
}

std::string first_line(const char *text) {
    const std::string whole(text);
    return whole.substr(0, whole.find('\n'));
}

} // namespace

std::shared_ptr<const OnnxRuntime> OnnxRuntime::open(std::string path) {
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<const OnnxRuntime>> opened;
    if (const char *named = std::getenv("JANUS_ONNXRUNTIME"); path.empty() && named) path = named;
    const std::lock_guard<std::mutex> lock(mutex);
    if (auto runtime = opened[path].lock()) return runtime;
    const std::shared_ptr<const OnnxRuntime> runtime(new OnnxRuntime(path));
    opened[path] = runtime;
    return runtime;
}

OnnxRuntime::OnnxRuntime(const std::string &path) {
    const std::string name = path.empty() ? find_library() : path;
    void *library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *reason = dlerror();
        throw Error(JANUS_BACKEND,
                    std::string("ONNX Runtime cannot be opened (") + (reason ? reason : name.c_str()) +
                        "); give the path of libonnxruntime.so, such as the one in the wheel's onnxruntime/capi, or set JANUS_ONNXRUNTIME");
    }
    const auto get_base = reinterpret_cast<const OrtApiBase *(*)()>(dlsym(library, "OrtGetApiBase"));
    if (!get_base) throw Error(JANUS_BACKEND, name + " is not ONNX Runtime: it has no OrtGetApiBase; give the path of libonnxruntime.so");
    version_ = get_base()->GetVersionString();
    api_ = get_base()->GetApi(API_VERSION);
    if (!api_) throw Error(JANUS_BACKEND, name + " is ONNX Runtime " + version_ + "; expected 1.20 or newer");
    // What goes wrong comes back as a status; the log would print it a second time.
    Scoped<OrtEnv> environment(api_->ReleaseEnv);
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "janus", environment.out()), JANUS_BACKEND, "ONNX Runtime cannot start: ");
    // The environment variable alone is early enough, see janus.h. This ends what a host left on.
    api_->ReleaseStatus(api_->DisableTelemetryEvents(environment.get()));
    check(api_->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &host_memory_), JANUS_BACKEND, "ONNX Runtime cannot start: ");
    environment_ = environment.release();
}

OnnxRuntime::~OnnxRuntime() {
    api_->ReleaseMemoryInfo(host_memory_);
    api_->ReleaseEnv(environment_);
}

bool OnnxRuntime::is_at_least(int major, int minor) const {
    int got_major = 0, got_minor = 0;
    std::sscanf(version_.c_str(), "%d.%d", &got_major, &got_minor);
    return got_major > major || (got_major == major && got_minor >= minor);
}

void OnnxRuntime::check(OrtStatus *result, janus_status status, const std::string &before, const std::string &after) const {
    if (!result) return;
    const std::unique_ptr<OrtStatus, void(ORT_API_CALL *)(OrtStatus *)> owner(result, api_->ReleaseStatus);
    const std::string reason = first_line(api_->GetErrorMessage(result));
    throw Error(is_out_of_memory(reason) ? JANUS_OUT_OF_MEMORY : status, before + reason + after);
}

Engine::Engine(std::shared_ptr<const OnnxRuntime> runtime, const Bundle &bundle, const Graph &graph, int num_threads)
    : runtime_(std::move(runtime)), graph_(graph) {
    const OrtApi &api = runtime_->api();
    const std::string path = (bundle.path() / graph.file).string();
    const auto check = [&](OrtStatus *result) {
        runtime_->check(result, JANUS_BUNDLE, path + " cannot be opened: ", "; run 'janus-rt verify'");
    };
    Scoped<OrtSessionOptions> options(api.ReleaseSessionOptions);
    check(api.CreateSessionOptions(options.out()));
    check(api.SetSessionLogSeverityLevel(options.get(), ORT_LOGGING_LEVEL_FATAL));
    // Engines take turns. Threads wait for a graph's next kernel awake and sleep after its last: spinning on, they would take the next
    // graph's cores.
    check(api.AddSessionConfigEntry(options.get(), "session.force_spinning_stop", "1"));
    // Without VNNI pairs of 8-bit products would overflow: signed weights become unsigned when a graph is opened.
    if (!has_vnni()) check(api.AddSessionConfigEntry(options.get(), "session.x64quantprecision", "1"));
    if (num_threads) check(api.SetIntraOpNumThreads(options.get(), num_threads));
    Scoped<OrtSession> session(api.ReleaseSession);
    const Ranges before = anonymous_ranges();
    check(api.CreateSession(runtime_->environment(), path.c_str(), options.get(), session.out()));
    collapse_since(before);
    bundle.check_unchanged({graph.file, "weights.data"});
    session_ = session.release();
}

Engine::~Engine() { runtime_->api().ReleaseSession(session_); }

void Engine::run(const Named &inputs, const Named &outputs) const { bind(inputs, outputs).run(); }

bool Engine::run_unless(RunStop &stop, const Named &inputs, const Named &outputs) const { return bind(inputs, outputs).run_unless(stop); }

Binding Engine::bind(const Named &inputs, const Named &outputs) const {
    Binding binding(*this);
    for (const auto &[name, view] : inputs) binding.bind_input(name, view);
    for (const auto &[name, view] : outputs) binding.bind_output(name, view);
    return binding;
}

namespace {

// A tensor of ONNX Runtime over a view's memory, for `use`, which keeps what it needs of it.
template <typename Use> void with_value(const OnnxRuntime &runtime, const std::string &graph, const View &view, Use use) {
    const OrtApi &api = runtime.api();
    Scoped<OrtValue> value(api.ReleaseValue);
    runtime.check(api.CreateTensorWithDataAsOrtValue(runtime.host_memory(), view.data, view.bytes(), view.shape.data(), view.shape.size(),
                                                     element_type(view.dtype), value.out()),
                  JANUS_BACKEND, graph + " failed: ");
    runtime.check(use(value.get()), JANUS_BACKEND, graph + " failed: ");
}

} // namespace

Binding::Binding(const Engine &engine) : engine_(engine) {
    const OnnxRuntime &runtime = *engine.runtime_;
    runtime.check(runtime.api().CreateIoBinding(engine.session_, &binding_), JANUS_BACKEND, engine.graph_.name + " failed: ");
}

Binding::~Binding() {
    if (binding_) engine_.runtime_->api().ReleaseIoBinding(binding_);
}

void Binding::bind_input(const std::string &name, const View &view) {
    const OnnxRuntime &runtime = *engine_.runtime_;
    with_value(runtime, engine_.graph_.name, view, [&](OrtValue *value) { return runtime.api().BindInput(binding_, name.c_str(), value); });
}

void Binding::bind_output(const std::string &name, const View &view) {
    const OnnxRuntime &runtime = *engine_.runtime_;
    with_value(runtime, engine_.graph_.name, view,
               [&](OrtValue *value) { return runtime.api().BindOutput(binding_, name.c_str(), value); });
}

void Binding::run() {
    const OnnxRuntime &runtime = *engine_.runtime_;
    runtime.check(runtime.api().RunWithBinding(engine_.session_, nullptr, binding_), JANUS_BACKEND, engine_.graph_.name + " failed: ");
}

bool Binding::run_unless(RunStop &stop) {
    if (!stop.is_watching()) {
        run();
        return true;
    }
    const OnnxRuntime &runtime = *engine_.runtime_;
    const OrtApi &api = runtime.api();
    Scoped<OrtRunOptions> options(api.ReleaseRunOptions);
    runtime.check(api.CreateRunOptions(options.out()), JANUS_BACKEND, engine_.graph_.name + " failed: ");
    OrtStatus *status = nullptr;
    {
        // Between two nodes ONNX Runtime looks whether to go on, and fails where it is not to.
        const RunStop::During during(stop, [&] { api.ReleaseStatus(api.RunOptionsSetTerminate(options.get())); });
        status = api.RunWithBinding(engine_.session_, options.get(), binding_);
    }
    if (status && stop.is_set()) {
        api.ReleaseStatus(status);
        return false;
    }
    runtime.check(status, JANUS_BACKEND, engine_.graph_.name + " failed: ");
    return true;
}

} // namespace janus
