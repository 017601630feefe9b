// ONNX Runtime's C interface over numbers that are cheap to make: every output depends on every small input, so that a wrong id, row or
// step shows in what follows. JANUS_SCRIPTED_FAULT=<graph>:<run> makes that run of a graph give NaN, <graph>:<run>:fail makes it fail,
// <graph>:<run>:wait makes it last until it is ended.
#include <onnxruntime_c_api.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <thread>
#include <vector>

struct OrtStatus {
    std::string message;
};
struct OrtEnv {};
struct OrtSessionOptions {};
struct OrtMemoryInfo {};
struct OrtRunOptions {
    std::atomic<bool> ends{false};
};
struct OrtValue {
    void *data;
    size_t bytes;
    ONNXTensorElementDataType type;
};
struct OrtSession {
    std::string name;
    std::atomic<int> runs{0};
};
struct OrtIoBinding {
    std::map<std::string, OrtValue> inputs, outputs;
};

namespace {

// FNV-1a over the start of a tensor: a cache's zeros would take long to read.
uint64_t hash_bytes(uint64_t hash, const void *data, size_t size) {
    for (size_t i = 0; i < size && i < 4096; ++i) hash = (hash ^ static_cast<const unsigned char *>(data)[i]) * 0x100000001B3ULL;
    return hash;
}

uint64_t next(uint64_t &state) {
    state += 0x9E3779B97F4A7C15ULL;
    uint64_t word = state;
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9ULL;
    word = (word ^ (word >> 27)) * 0x94D049BB133111EBULL;
    return word ^ (word >> 31);
}

bool is_cache(const std::string &name) { return name.rfind("past_key", 0) == 0 || name.rfind("past_value", 0) == 0; }

void fill(const OrtValue &value, uint64_t state, bool with_nan) {
    if (value.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) {
        auto *numbers = static_cast<float *>(value.data);
        const size_t count = value.bytes / sizeof(float);
        for (size_t i = 0; i < count; ++i) numbers[i] = static_cast<float>(next(state) >> 40) / 8388608.0F - 1;
        if (with_nan && count) numbers[count / 2] = std::numeric_limits<float>::quiet_NaN();
    } else if (value.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32) {
        auto *numbers = static_cast<int32_t *>(value.data);
        for (size_t i = 0; i < value.bytes / sizeof(int32_t); ++i) numbers[i] = static_cast<int32_t>(next(state) % 512);
    } else {
        std::memset(value.data, 0, value.bytes);
    }
}

OrtStatus *make_status(const char *message) { return new OrtStatus{message}; }

const char *fault_of(const std::string &name, int run) {
    static const char *const none = "";
    const char *stated = std::getenv("JANUS_SCRIPTED_FAULT");
    if (!stated) return none;
    const std::string wanted = name + ":" + std::to_string(run);
    if (std::strncmp(stated, wanted.c_str(), wanted.size()) != 0) return none;
    return stated + wanted.size() == stated + std::strlen(stated) ? "nan" : stated + wanted.size() + 1;
}

OrtStatus *ORT_API_CALL create_env(OrtLoggingLevel, const char *, OrtEnv **out) noexcept {
    *out = new OrtEnv;
    return nullptr;
}
void ORT_API_CALL release_env(OrtEnv *env) noexcept { delete env; }
const char *ORT_API_CALL get_message(const OrtStatus *status) noexcept { return status->message.c_str(); }
void ORT_API_CALL release_status(OrtStatus *status) noexcept { delete status; }
OrtStatus *ORT_API_CALL disable_telemetry(const OrtEnv *) noexcept { return nullptr; }
OrtStatus *ORT_API_CALL create_options(OrtSessionOptions **out) noexcept {
    *out = new OrtSessionOptions;
    return nullptr;
}
void ORT_API_CALL release_options(OrtSessionOptions *options) noexcept { delete options; }
OrtStatus *ORT_API_CALL set_severity(OrtSessionOptions *, int) noexcept { return nullptr; }
OrtStatus *ORT_API_CALL set_threads(OrtSessionOptions *, int) noexcept { return nullptr; }
OrtStatus *ORT_API_CALL add_entry(OrtSessionOptions *, const char *, const char *) noexcept { return nullptr; }
OrtStatus *ORT_API_CALL create_session(const OrtEnv *, const ORTCHAR_T *path, const OrtSessionOptions *, OrtSession **out) noexcept {
    const std::string whole(path), file = whole.substr(whole.rfind('/') + 1);
    if (fault_of(file, 0) == std::string("fail")) return make_status("scripted: the file is damaged\nand more");
    *out = new OrtSession;
    (*out)->name = file.substr(0, file.rfind(".onnx"));
    return nullptr;
}
void ORT_API_CALL release_session(OrtSession *session) noexcept { delete session; }
OrtStatus *ORT_API_CALL create_memory_info(OrtAllocatorType, OrtMemType, OrtMemoryInfo **out) noexcept {
    *out = new OrtMemoryInfo;
    return nullptr;
}
void ORT_API_CALL release_memory_info(OrtMemoryInfo *info) noexcept { delete info; }
OrtStatus *ORT_API_CALL create_tensor(const OrtMemoryInfo *, void *data, size_t bytes, const int64_t *, size_t,
                                      ONNXTensorElementDataType type, OrtValue **out) noexcept {
    *out = new OrtValue{data, bytes, type};
    return nullptr;
}
void ORT_API_CALL release_value(OrtValue *value) noexcept { delete value; }
OrtStatus *ORT_API_CALL create_binding(OrtSession *, OrtIoBinding **out) noexcept {
    *out = new OrtIoBinding;
    return nullptr;
}
void ORT_API_CALL release_binding(OrtIoBinding *binding) noexcept { delete binding; }
OrtStatus *ORT_API_CALL bind_input(OrtIoBinding *binding, const char *name, const OrtValue *value) noexcept {
    binding->inputs[name] = *value;
    return nullptr;
}
OrtStatus *ORT_API_CALL bind_output(OrtIoBinding *binding, const char *name, const OrtValue *value) noexcept {
    binding->outputs[name] = *value;
    return nullptr;
}

OrtStatus *ORT_API_CALL create_run_options(OrtRunOptions **out) noexcept {
    *out = new OrtRunOptions;
    return nullptr;
}
OrtStatus *ORT_API_CALL set_terminate(OrtRunOptions *options) noexcept {
    options->ends = true;
    return nullptr;
}
void ORT_API_CALL release_run_options(OrtRunOptions *options) noexcept { delete options; }

OrtStatus *ORT_API_CALL run(OrtSession *session, const OrtRunOptions *options, const OrtIoBinding *binding) noexcept {
    const std::string fault = fault_of(session->name, ++session->runs);
    if (fault == "fail") return make_status("scripted: the run failed\nand more");
    if (fault == "wait") {
        for (int ms = 0; ms < 60'000 && !(options && options->ends); ++ms) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return make_status(options && options->ends ? "scripted: ended" : "scripted: nobody ended the run in a minute");
    }
    if (fault == "memory") return make_status("scripted: Failed to allocate memory for 12 bytes");
    uint64_t hash = hash_bytes(0xCBF29CE484222325ULL, session->name.data(), session->name.size());
    for (const auto &[name, value] : binding->inputs) {
        if (!is_cache(name)) hash = hash_bytes(hash, value.data, value.bytes);
    }
    for (const auto &[name, value] : binding->outputs) {
        if (name.rfind("present_", 0) != 0) fill(value, hash, fault == "nan");
    }
    return nullptr;
}

const OrtApi *ORT_API_CALL get_api(uint32_t version) noexcept {
    static const OrtApi api = [] {
        OrtApi made{};
        made.CreateEnv = create_env;
        made.ReleaseEnv = release_env;
        made.GetErrorMessage = get_message;
        made.ReleaseStatus = release_status;
        made.DisableTelemetryEvents = disable_telemetry;
        made.CreateSessionOptions = create_options;
        made.ReleaseSessionOptions = release_options;
        made.SetSessionLogSeverityLevel = set_severity;
        made.SetIntraOpNumThreads = set_threads;
        made.AddSessionConfigEntry = add_entry;
        made.CreateSession = create_session;
        made.ReleaseSession = release_session;
        made.CreateCpuMemoryInfo = create_memory_info;
        made.ReleaseMemoryInfo = release_memory_info;
        made.CreateTensorWithDataAsOrtValue = create_tensor;
        made.ReleaseValue = release_value;
        made.CreateIoBinding = create_binding;
        made.ReleaseIoBinding = release_binding;
        made.BindInput = bind_input;
        made.BindOutput = bind_output;
        made.RunWithBinding = run;
        made.CreateRunOptions = create_run_options;
        made.RunOptionsSetTerminate = set_terminate;
        made.ReleaseRunOptions = release_run_options;
        return made;
    }();
    return version <= 99 ? &api : nullptr;
}

const char *ORT_API_CALL get_version() noexcept { return "1.99.0"; }

} // namespace

extern "C" __attribute__((visibility("default"))) const OrtApiBase *ORT_API_CALL OrtGetApiBase(void) noexcept {
    static const OrtApiBase base{get_api, get_version};
    return &base;
}
