#include "manifest.h"

#include <algorithm>
#include <array>

#include "error.h"
#include "json_object.h"
#include "manifest_check.h"
#include "utf8.h"

namespace janus {
namespace {

using Texts = std::vector<std::string>;

LanguageModel read_language_model(const Json &value, const std::string &where) {
    const JsonObject object(value, where, {"hidden_size", "num_layers", "num_heads", "head_size", "vocab_size", "max_length"});
    return {object.whole("hidden_size"), object.whole("num_layers"), object.whole("num_heads"),
            object.whole("head_size"),   object.whole("vocab_size"), object.whole("max_length")};
}

void check_source(const Json &value, const std::string &where) {
    const JsonObject object(value, where, {"name", "revision", "layout", "dtype", "vae"});
    object.text("name");
    if (!object.is_null("revision")) object.text("revision");
    object.text("layout");
    object.text("dtype");
    if (!object.is_null("vae")) object.text("vae");
}

Token read_token(const JsonObject &tokens, const char *name) {
    const JsonObject object(tokens.at(name), tokens.place(name), {"text", "id"});
    return {object.text("text"), object.whole("id")};
}

Tokens read_tokens(const Json &value, const std::string &where) {
    const JsonObject object(value, where, {"bos", "eos", "pad", "begin_of_image", "end_of_image", "image_placeholder"});
    return {read_token(object, "bos"),          read_token(object, "eos"),
            read_token(object, "pad"),          read_token(object, "begin_of_image"),
            read_token(object, "end_of_image"), read_token(object, "image_placeholder")};
}

Template read_template(const Json &value, const std::string &where) {
    const JsonObject object(value, where, {"system", "user", "assistant", "after_system", "after_user", "after_assistant"});
    return {object.text("system"),       object.text("user"),       object.text("assistant"),
            object.text("after_system"), object.text("after_user"), object.text("after_assistant")};
}

// All items are checked before their number is, as in Python.
template <typename Value, typename Read> std::array<Value, 3> read_three(const JsonObject &object, const char *field, Read read) {
    const Json &value = object.at(field);
    if (!value.is_array()) refuse_json(object.place(field), "tuple", value);
    std::array<Value, 3> result{};
    for (size_t i = 0; i < value.array().size(); ++i) {
        const Value item = read(value.array()[i], object.place(field) + "[" + std::to_string(i) + "]");
        if (i < 3) result[i] = item;
    }
    return result;
}

ImageInput read_image_input(const Json &value, const std::string &where) {
    const JsonObject object(value, where, {"size", "min_size", "mean", "std", "background", "num_tokens", "includes_begin"});
    ImageInput input;
    input.size = object.whole("size");
    input.min_size = object.whole("min_size");
    input.mean = read_three<double>(object, "mean", finite_number);
    input.std = read_three<double>(object, "std", finite_number);
    input.background = read_three<int>(object, "background", whole_number);
    input.num_tokens = object.whole("num_tokens");
    input.includes_begin = object.boolean("includes_begin");
    return input;
}

ImageOutput read_image_output(const Json &value, const std::string &where) {
    const JsonObject object(value, where, {"size", "grid", "num_tokens", "num_ids"});
    ImageOutput output{object.whole("size"), object.whole("grid"), object.whole("num_tokens"), std::nullopt};
    if (!object.is_null("num_ids")) output.num_ids = object.whole("num_ids");
    return output;
}

Schedule read_schedule(const JsonObject &solvers, const char *name) {
    const JsonObject object(solvers.at(name), solvers.place(name), {"steps", "shift"});
    return {object.whole("steps"), object.number("shift")};
}

std::optional<Flow> read_flow(const Json &value, const std::string &where) {
    if (value.is_null()) return std::nullopt;
    const JsonObject object(value, where, {"latent_channels", "latent_size", "condition_size", "solvers"});
    Flow flow{object.whole("latent_channels"), object.whole("latent_size"), object.whole("condition_size"), {}, {}};
    const JsonObject solvers(object.at("solvers"), object.place("solvers"), {"euler", "ab2"});
    flow.euler = read_schedule(solvers, "euler");
    flow.ab2 = read_schedule(solvers, "ab2");
    return flow;
}

Defaults read_defaults(const Json &value, const std::string &where) {
    const JsonObject object(value, where, {"cfg_weight", "temperature", "max_tokens"});
    return {object.number("cfg_weight"), object.number("temperature"), object.whole("max_tokens")};
}

DType read_dtype(const JsonObject &object, const char *field) {
    const std::string name = object.one_of(field, dtype_names());
    return static_cast<DType>(std::find(dtype_names().begin(), dtype_names().end(), name) - dtype_names().begin());
}

TensorSpec read_spec(const Json &value, const std::string &where) {
    const JsonObject object(value, where, {"dtype", "shape"});
    TensorSpec spec{read_dtype(object, "dtype"), {}};
    const Json &shape = object.at("shape");
    if (!shape.is_array()) refuse_json(object.place("shape"), "tuple", shape);
    for (const Json &size : shape.array()) {
        if (size.is_string()) {
            spec.shape.emplace_back(size.text());
        } else if (size.is_number_integer()) {
            spec.shape.emplace_back(size.integer());
        } else {
            refuse_json(object.place("shape") + "[" + std::to_string(spec.shape.size()) + "]", "int | str", size);
        }
    }
    return spec;
}

TensorSpecs read_specs(const JsonObject &graph, const char *field) {
    if (!graph.at(field).is_object()) refuse_json(graph.place(field), "dict", graph.at(field));
    TensorSpecs specs;
    for (const auto &[name, value] : graph.at(field).object()) specs.emplace_back(name, read_spec(value, graph.place(field) + "." + name));
    return specs;
}

std::optional<KvCache> read_cache(const Json &value, const std::string &where) {
    if (value.is_null()) return std::nullopt;
    const JsonObject object(value, where, {"dtype", "inputs", "outputs", "in_place", "ragged_append"});
    return KvCache{read_dtype(object, "dtype"), object.texts("inputs"), object.texts("outputs"), object.boolean("in_place"),
                   object.boolean("ragged_append")};
}

// What the exporter measured, for people.
void check_judged(const JsonObject &graph) {
    if (graph.is_null("judged")) return;
    const Json &judged = graph.at("judged");
    if (!judged.is_object()) refuse_json(graph.place("judged"), "dict", judged);
    for (const auto &[name, value] : judged.object()) finite_number(value, graph.place("judged") + "." + name);
}

Graph read_graph(const std::string &name, const Json &value, const std::string &where) {
    const JsonObject object(value, where, {"kind", "flavour", "file", "format", "inputs", "outputs", "cache", "weight_bytes", "judged"});
    Graph graph{name, object.one_of("kind", graph_kinds()), {}, {}, DType::float32, {}, {}, {}};
    if (!object.is_null("flavour")) graph.flavour = object.one_of("flavour", flavours());
    graph.file = object.text("file");
    const JsonObject format(object.at("format"), object.place("format"), {"weights", "activations"});
    format.one_of("weights", {"float32", "float16", "int8", "int4"});
    graph.activations = read_dtype(format, "activations");
    graph.inputs = read_specs(object, "inputs");
    graph.outputs = read_specs(object, "outputs");
    graph.cache = read_cache(object.at("cache"), object.place("cache"));
    object.bytes("weight_bytes");
    check_judged(object);
    return graph;
}

Json read_json(std::string_view text, const std::string &where) {
    try {
        return Json::parse(text);
    } catch (const Json::exception &error) {
        throw Error(JANUS_BUNDLE, where + " is not JSON (" + error.what() + "); export the bundle again");
    }
}

void check_format(const Json &value, const std::string &where) {
    const Json *format = value.is_object() ? value.find("format") : nullptr;
    if (!format || !format->is_number_integer()) {
        throw Error(JANUS_BUNDLE, where + " has no format number; expected a manifest written by janus-export");
    }
    if (format->integer() != FORMAT) {
        throw Error(JANUS_BUNDLE, where + " has format " + python_repr(*format) + ", this version reads format " + std::to_string(FORMAT) +
                                      "; export the bundle again or install the janus-rt that wrote it");
    }
}

} // namespace

Manifest Manifest::parse(std::string_view text, const std::string &where) {
    if (!is_utf8(text)) throw Error(JANUS_BUNDLE, where + " is not UTF-8 text; export the bundle again");
    const Json value = read_json(text, where);
    check_format(value, where);
    const JsonObject object(value, where,
                            {"format", "name", "family", "precision", "random_weights", "tasks", "source", "language_model", "tokens",
                             "template", "image_input", "image_output", "flow", "defaults", "graphs", "files", "built_with"});
    Manifest manifest;
    manifest.name = object.text("name");
    manifest.family = object.one_of("family", {"janus", "janus-pro", "janus-flow"});
    manifest.precision = object.one_of("precision", {"fp32", "fp16", "int8", "int4"});
    manifest.random_weights = object.boolean("random_weights");
    if (!object.at("tasks").is_array()) refuse_json(object.place("tasks"), "tuple", object.at("tasks"));
    for (const Json &task : object.at("tasks").array()) {
        if (!task.is_string() || (task.text() != "generation" && task.text() != "understanding")) {
            refuse_json(object.place("tasks") + "[" + std::to_string(manifest.tasks.size()) + "]", "one of generation, understanding",
                        task);
        }
        manifest.tasks.push_back(task.text());
    }
    check_source(object.at("source"), object.place("source"));
    manifest.language_model = read_language_model(object.at("language_model"), object.place("language_model"));
    manifest.tokens = read_tokens(object.at("tokens"), object.place("tokens"));
    manifest.text_template = read_template(object.at("template"), object.place("template"));
    manifest.image_input = read_image_input(object.at("image_input"), object.place("image_input"));
    manifest.image_output = read_image_output(object.at("image_output"), object.place("image_output"));
    manifest.flow = read_flow(object.at("flow"), object.place("flow"));
    manifest.defaults = read_defaults(object.at("defaults"), object.place("defaults"));
    if (!object.at("graphs").is_object()) refuse_json(object.place("graphs"), "dict", object.at("graphs"));
    for (const auto &[name, graph] : object.at("graphs").object()) {
        manifest.graphs.push_back(read_graph(name, graph, object.place("graphs") + "." + name));
    }
    if (!object.at("files").is_object()) refuse_json(object.place("files"), "dict", object.at("files"));
    for (const auto &[name, file] : object.at("files").object()) {
        const JsonObject entry(file, object.place("files") + "." + name, {"bytes", "sha256"});
        manifest.files.emplace_back(name, entry.bytes("bytes"));
        entry.text("sha256");
    }
    if (!object.at("built_with").is_object()) refuse_json(object.place("built_with"), "dict", object.at("built_with"));
    for (const auto &[part, version] : object.at("built_with").object()) {
        if (!version.is_string()) refuse_json(object.place("built_with") + "." + part, "str", version);
    }
    const Json &input = object.at("image_input");
    check_manifest(manifest, {input.at("mean").array().size(), input.at("std").array().size(), input.at("background").array().size()},
                   where);
    return manifest;
}

bool Manifest::has_task(std::string_view task) const { return std::find(tasks.begin(), tasks.end(), task) != tasks.end(); }

const Graph *Manifest::find_graph(std::string_view wanted) const {
    const auto found = std::find_if(graphs.begin(), graphs.end(), [&](const Graph &graph) { return graph.name == wanted; });
    return found == graphs.end() ? nullptr : &*found;
}

std::string Manifest::name_on_cpu(const std::string &name) const {
    const std::string own = graph_name(name, "cpu");
    return find_graph(own) ? own : name;
}

Sizes Manifest::sizes() const {
    Sizes sizes{language_model.num_layers, language_model.hidden_size, language_model.num_heads, language_model.head_size,
                language_model.vocab_size, image_input.size,           image_input.num_tokens,   image_output.size,
                image_output.num_tokens,   image_output.num_ids};
    if (flow) {
        sizes.latent_channels = flow->latent_channels;
        sizes.latent_size = flow->latent_size;
        sizes.condition_size = flow->condition_size;
    }
    return sizes;
}

} // namespace janus
