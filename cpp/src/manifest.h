// manifest.json, parsed strictly: the counterpart of janus_runtime/bundle/manifest.py. See docs/bundle.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "interface.h"
#include "pixels.h"

namespace janus {

constexpr int FORMAT = 7;
constexpr int MAX_STEPS = 10'000;
constexpr double MAX_SHIFT = 100;

struct Graph {
    std::string name;
    std::string kind;
    std::string flavour; // empty for the form that every backend takes
    std::string file;
    DType activations;
    TensorSpecs inputs;
    TensorSpecs outputs;
    std::optional<KvCache> cache;
};

struct LanguageModel {
    int hidden_size, num_layers, num_heads, head_size, vocab_size, max_length;
};

struct Token {
    std::string text;
    int id;
};

struct Tokens {
    Token bos, eos, pad, begin_of_image, end_of_image, image_placeholder;
};

struct Template {
    std::string system, user, assistant, after_system, after_user, after_assistant;
};

struct ImageOutput {
    int size, grid, num_tokens;
    std::optional<int> num_ids; // none for JanusFlow
};

enum class FlowSolver { euler, ab2 };

// A solver's steps by default, and how much their times crowd at the noise: 1 spaces them evenly.
struct Schedule {
    int steps;
    double shift;
};

struct Flow {
    int latent_channels, latent_size, condition_size;
    Schedule euler, ab2;

    const Schedule &schedule(FlowSolver solver) const { return solver == FlowSolver::ab2 ? ab2 : euler; }
};

struct Defaults {
    double cfg_weight, temperature;
    int max_tokens;
};

struct Manifest {
    // Throws Error (JANUS_BUNDLE) on anything that is not exactly a manifest of this format; `where` is what messages call it.
    static Manifest parse(std::string_view text, const std::string &where);

    bool has_task(std::string_view task) const;
    const Graph *find_graph(std::string_view name) const;
    // The key of the graph that runs as `name` on a CPU: `vision_encoder` may be `vision_encoder.cpu`.
    std::string name_on_cpu(const std::string &name) const;
    Sizes sizes() const;

    std::string name, family, precision;
    bool random_weights = false;
    std::vector<std::string> tasks;
    LanguageModel language_model{};
    Tokens tokens;
    Template text_template;
    ImageInput image_input;
    ImageOutput image_output{};
    std::optional<Flow> flow;
    Defaults defaults{};
    std::vector<Graph> graphs;
    std::vector<std::pair<std::string, uint64_t>> files; // name and size
};

} // namespace janus
