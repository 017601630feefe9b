#include "manifest_check.h"

#include <algorithm>
#include <set>

#include "error.h"
#include "python_repr.h"

namespace janus {
namespace {

using Names = std::set<std::string>;

bool leaves_bundle(const std::string &name) {
    if (name.empty() || !is_printable(name) || name[0] == '/' || name.find_first_of("\\:") != name.npos) return true;
    const std::string path = "/" + name + "/";
    return path.find("/../") != path.npos;
}

void check_files(const Manifest &manifest, const std::string &where) {
    for (const auto &[name, bytes] : manifest.files) {
        if (leaves_bundle(name)) {
            throw Error(JANUS_BUNDLE, where + ": file path " + python_repr(std::string_view(name)) +
                                          " leaves the bundle; paths must be relative, without '..'");
        }
    }
    std::vector<std::string> needed{"weights.data", "tokenizer.json", "goldens.npz"};
    for (const Graph &graph : manifest.graphs) needed.push_back(graph.file);
    for (const std::string &name : needed) {
        if (std::none_of(manifest.files.begin(), manifest.files.end(), [&](const auto &file) { return file.first == name; })) {
            throw Error(JANUS_BUNDLE,
                        where + ": " + python_repr(std::string_view(name)) + " is not listed under files; export the bundle again");
        }
    }
}

void check_tasks(const Manifest &manifest, const std::string &where) {
    Names kinds;
    for (const Graph &graph : manifest.graphs) kinds.insert(graph.kind);
    for (const std::string &task : manifest.tasks) {
        const Names needed = task == "understanding" ? Names{"text_embed", "vision_encoder", "language_model", "text_head"}
                             : manifest.flow         ? Names{"text_embed", "time_embed", "flow_step", "image_decoder"}
                                                     : Names{"text_embed", "image_embed", "language_model", "image_head", "image_decoder"};
        std::vector<std::string> missing;
        std::set_difference(needed.begin(), needed.end(), kinds.begin(), kinds.end(), std::back_inserter(missing));
        if (!missing.empty()) {
            throw Error(JANUS_BUNDLE,
                        where + ": graphs " + join(missing) + " are missing, which " + task + " needs; export the bundle again");
        }
    }
}

void check_ranges(const Manifest &manifest, const std::string &where) {
    const auto require = [&](bool good, const std::string &label, const std::string &value) {
        if (!good) throw Error(JANUS_BUNDLE, where + ": " + label + " is " + value + ", which no Janus has; export the bundle again");
    };
    const auto between = [&](const char *label, int64_t value, int64_t low, int64_t high) {
        require(low <= value && value <= high, label, std::to_string(value));
    };
    require(!manifest.tasks.empty(), "tasks", "()");
    between("language_model.num_layers", manifest.language_model.num_layers, 1, 1000);
    between("language_model.max_length", manifest.language_model.max_length, 2, INT64_MAX);
    const ImageInput &input = manifest.image_input;
    between("image_input.size", input.size, 1, 16384);
    between("image_input.min_size", input.min_size, 1, input.size);
    require(std::count(input.std.begin(), input.std.end(), 0.0) == 0, "image_input.std",
            "(" + join({python_repr(input.std[0]), python_repr(input.std[1]), python_repr(input.std[2])}) + ")");
    require(*std::max_element(input.background.begin(), input.background.end()) <= 255, "image_input.background",
            "(" + join({std::to_string(input.background[0]), std::to_string(input.background[1]), std::to_string(input.background[2])}) +
                ")");
    between("image_output.grid", manifest.image_output.grid, 1, 1024);
    between("image_output.size", manifest.image_output.size, 1, 16384);
    const auto &num_ids = manifest.image_output.num_ids;
    require(num_ids.has_value() != manifest.flow.has_value(), "image_output.num_ids", num_ids ? std::to_string(*num_ids) : "None");
    if (manifest.flow) {
        for (const auto &[label, schedule] : {std::pair<std::string, const Schedule &>{"flow.solvers.euler", manifest.flow->euler},
                                              std::pair<std::string, const Schedule &>{"flow.solvers.ab2", manifest.flow->ab2}}) {
            between((label + ".steps").c_str(), schedule.steps, 1, MAX_STEPS);
            require(schedule.shift >= 1 && schedule.shift <= MAX_SHIFT, label + ".shift", python_repr(schedule.shift));
        }
        between("flow.latent_size", manifest.flow->latent_size, 1, 4096);
        between("flow.latent_channels", manifest.flow->latent_channels, 1, 4096);
        between("flow.condition_size", manifest.flow->condition_size, 1, 1 << 24);
    }
    between("defaults.max_tokens", manifest.defaults.max_tokens, 1, INT64_MAX);
    require(manifest.defaults.temperature >= 0, "defaults.temperature", python_repr(manifest.defaults.temperature));
    const Tokens &tokens = manifest.tokens;
    const std::pair<const char *, const Token *> all[] = {{"bos", &tokens.bos},
                                                          {"eos", &tokens.eos},
                                                          {"pad", &tokens.pad},
                                                          {"begin_of_image", &tokens.begin_of_image},
                                                          {"end_of_image", &tokens.end_of_image},
                                                          {"image_placeholder", &tokens.image_placeholder}};
    for (const auto &[name, token] : all) {
        between((std::string("tokens.") + name + ".id").c_str(), token->id, 0, manifest.language_model.vocab_size - 1);
    }
}

class Fit {
public:
    explicit Fit(const std::string &where) : where_(where) {}

    void operator()(const std::string &label, const std::string &expected, const std::string &got) const {
        if (expected != got) throw Error(JANUS_BUNDLE, where_ + ": " + label + " does not fit: expected " + expected + ", got " + got);
    }

private:
    const std::string &where_;
};

void check_tensors(const Fit &fit, const std::string &label, const TensorSpecs &expected, const TensorSpecs &got) {
    std::vector<std::string> wanted_names, got_names;
    for (const auto &[name, spec] : expected) wanted_names.push_back(name);
    for (const auto &[name, spec] : got) got_names.push_back(name);
    fit(label, python_repr(wanted_names), python_repr(got_names));
    for (size_t i = 0; i < expected.size(); ++i) {
        fit(label + "." + expected[i].first, python_repr(expected[i].second), python_repr(got[i].second));
    }
}

void check_graph(const Fit &fit, const Manifest &manifest, const Graph &graph) {
    const Names of_others = manifest.flow ? Names{"image_embed", "image_head", "image_draw", "image_encoder", "image_preview"}
                                          : Names{"time_embed", "flow_step"};
    const std::string label = "graphs." + graph.name;
    const bool cached = graph.kind == "language_model" || graph.kind == "flow_step";
    fit(label, graph_name(graph.kind, graph.flavour), graph.name);
    fit(label + ".kind", "of this family", of_others.count(graph.kind) ? graph.kind : "of this family");
    const std::string got = graph.flavour.empty() ? "None" : graph.flavour;
    fit(label + ".flavour", "one of the kind", has_flavour(graph.kind, graph.flavour) ? "one of the kind" : got);
    fit(label + ".cache", cached ? "a cache" : "None", graph.cache ? "a cache" : "None");
    const auto cache = graph.cache ? std::optional(graph.cache->dtype) : std::nullopt;
    const Interface expected = make_interface(graph.kind, graph.flavour, manifest.sizes(), graph.activations, cache);
    check_tensors(fit, label + ".inputs", expected.inputs, graph.inputs);
    check_tensors(fit, label + ".outputs", expected.outputs, graph.outputs);
    fit(label + ".cache", expected.cache ? python_repr(*expected.cache) : "None", graph.cache ? python_repr(*graph.cache) : "None");
}

} // namespace

void check_manifest(const Manifest &manifest, const std::array<size_t, 3> &lengths, const std::string &where) {
    check_files(manifest, where);
    check_tasks(manifest, where);
    check_ranges(manifest, where);
    const Fit fit(where);
    const int64_t grid = manifest.image_output.grid;
    fit("image_output.num_tokens", std::to_string(grid * grid), std::to_string(manifest.image_output.num_tokens));
    const char *const names[] = {"mean", "std", "background"};
    for (size_t i = 0; i < lengths.size(); ++i) fit(std::string("image_input.") + names[i], "3", std::to_string(lengths[i]));
    for (const Graph &graph : manifest.graphs) check_graph(fit, manifest, graph);
}

} // namespace janus
