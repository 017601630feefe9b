#include "command.h"

#include <array>
#include <cstdio>
#include <filesystem>
#include <iostream>

namespace cli {

std::vector<Option> with_common(std::vector<Option> options) {
    const std::vector<Option> common{
        {"--json", "", "Print one JSON object per result."},
        {"--quiet", "", "No progress and no notes on stderr."},
        {"--bundle", "DIR", "The model to run; default: janus-nano, as installed."},
        {"--backend", "auto|cpu", "Where to run: this command knows the CPU."},
        {"--onnxruntime", "PATH", "libonnxruntime.so; default: $JANUS_ONNXRUNTIME, else the system's."},
        {"--threads", "N", "Threads of one graph's run; default: one for each core."},
        {"--debug", "", "Accepted for janus-rt's sake."},
        {"--help", "", "Show this message and exit.", "-h"},
    };
    options.insert(options.end(), common.begin(), common.end());
    return options;
}

// The default is installed beside this program.
std::string bundle_of(const Arguments &arguments) {
    if (const auto bundle = arguments.text("--bundle")) return *bundle;
    std::error_code error;
    const std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe", error);
    return (own.parent_path() / JANUS_DEFAULT_BUNDLE).lexically_normal().string();
}

janus::Model open_model(const Arguments &arguments) {
    const std::string backend = arguments.text("--backend").value_or("auto");
    if (backend == "cuda" || backend == "tensorrt")
        throw janus::Exception(JANUS_BACKEND,
                               ("janus-rt-cpp runs on the CPU and not on " + backend + "; use janus-rt, or --backend cpu").c_str());
    if (backend != "auto" && backend != "cpu")
        throw UsageError("Invalid value for '--backend': '" + backend + "' is not one of 'auto', 'cpu', 'cuda', 'tensorrt'.");
    janus::Model::Options options;
    options.onnxruntime = arguments.text("--onnxruntime").value_or("");
    options.num_threads = static_cast<int>(arguments.whole("--threads", 1, 1024).value_or(0));
    options.disable_telemetry = true;
    janus::Model model(bundle_of(arguments), options);
    const janus::Info info = model.info();
    if (!arguments.has("--quiet")) {
        note(std::string(info.name) + ", " + info.precision + ", " + info.backend);
        if (info.random_weights) note("the weights of this bundle are random: expect noise, not pictures or sense");
    }
    return model;
}

void note(const std::string &text) { std::cerr << text << std::endl; }

void print_result(const Arguments &arguments, Json values) {
    values["backend"] = "cpu";
    std::error_code error;
    values["bundle"] = std::filesystem::canonical(bundle_of(arguments), error).string();
    std::cout << values.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
}

std::string format(const char *pattern, double number) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), pattern, number);
    return text.data();
}

} // namespace cli
