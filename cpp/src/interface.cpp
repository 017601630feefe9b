#include "interface.h"

#include "python_repr.h"

namespace janus {
namespace {

TensorSpecs per_layer(const std::string &prefix, const Sizes &sizes, const TensorSpec &spec) {
    TensorSpecs specs;
    for (int64_t layer = 0; layer < sizes.num_layers; ++layer) {
        for (const char *part : {"_key_", "_value_"}) specs.emplace_back(prefix + part + std::to_string(layer), spec);
    }
    return specs;
}

std::vector<std::string> names_of(const TensorSpecs &specs) {
    std::vector<std::string> names;
    for (const auto &[name, spec] : specs) names.push_back(name);
    return names;
}

void append(TensorSpecs &specs, const TensorSpecs &more) { specs.insert(specs.end(), more.begin(), more.end()); }

TensorSpecs own_inputs(const std::string &flavour, DType inner) {
    if (flavour == "gqa" || flavour == "gqa_cuda") {
        return {{"seqlens_k", {DType::int32, {"rows"}}}, {"total_sequence_length", {DType::int32, {}}}};
    }
    if (flavour == "slice") {
        return {{"position_ids", {DType::int32, {"rows", "tokens"}}},
                {"past_mask", {inner, {"rows", 1, 1, "max_length"}}},
                {"new_mask", {inner, {1, 1, "tokens", "tokens"}}}};
    }
    return {{"position_ids", {DType::int64, {"rows", "tokens"}}},
            {"write_indices", {DType::int64, {"rows"}}},
            {"attn_mask", {DType::boolean, {"rows", 1, "tokens", "max_length"}}}};
}

Interface language_model(const std::string &flavour, const Sizes &sizes, DType f, DType cache) {
    const bool in_place = flavour != "slice";
    const TensorSpec held{cache, {"rows", sizes.num_heads, "max_length", sizes.head_size}};
    const TensorSpec made{cache, {"rows", sizes.num_heads, "tokens", sizes.head_size}};
    const TensorSpecs past = per_layer("past", sizes, held);
    const TensorSpecs present = per_layer(in_place ? "present" : "new", sizes, in_place ? held : made);
    Interface result{{{"embeds", {f, {"rows", "tokens", sizes.hidden_size}}}, {"places", {DType::int32, {"outputs"}}}},
                     {{"hidden", {f, {"outputs", sizes.hidden_size}}}},
                     KvCache{cache, names_of(past), names_of(present), in_place, flavour == "slice" || flavour == "inplace"}};
    append(result.inputs, own_inputs(flavour, flavour == "gqa_cuda" ? DType::float16 : f));
    append(result.inputs, past);
    append(result.outputs, present);
    return result;
}

TensorSpec latents(const Sizes &sizes) { return {DType::float32, {"images", sizes.latent_channels, sizes.latent_size, sizes.latent_size}}; }

TensorSpecs time_outputs(const Sizes &sizes, const char *each) {
    return {{"time_embeds", {DType::float32, {each, sizes.hidden_size}}}, {"conditions", {DType::float32, {each, sizes.condition_size}}}};
}

Interface flow_step(const Sizes &sizes, DType f, DType cache) {
    const TensorSpecs past = per_layer("past", sizes, {cache, {"images", 2, sizes.num_heads, "max_length", sizes.head_size}});
    const TensorSpecs made = per_layer("new", sizes, {cache, {"images", 2, sizes.num_heads, "tokens", sizes.head_size}});
    const TensorSpec each{DType::float32, {"images"}};
    Interface result{{{"latents", latents(sizes)},
                      {"prefix_embeds", {f, {"images", 2, "tokens", sizes.hidden_size}}},
                      {"prefix_mask", {f, {"images", 2, "tokens"}}},
                      {"past_mask", {f, {"images", 2, "max_length"}}},
                      {"first_position", {DType::int32, {"images"}}}},
                     {{"next_latents", latents(sizes)}, {"velocity", latents(sizes)}},
                     KvCache{cache, names_of(past), names_of(made), false, false}};
    append(result.inputs, time_outputs(sizes, "images"));
    append(result.inputs, {{"cfg_weight", each}, {"dt", each}});
    append(result.inputs, past);
    append(result.outputs, made);
    return result;
}

Interface plain(const std::string &kind, const Sizes &sizes, DType f) {
    const int64_t num_ids = sizes.num_ids.value_or(0);
    const TensorSpec each{DType::float32, {"images"}}, ids{DType::int32, {"rows", "tokens"}};
    const TensorSpec embeds{f, {"rows", "tokens", sizes.hidden_size}}, hidden{f, {"rows", sizes.hidden_size}};
    const TensorSpec text_logits{DType::float32, {"rows", sizes.vocab_size}}, drawn{DType::int32, {"images", sizes.output_tokens}};
    const TensorSpec pixels_in{DType::float32, {"images", 3, sizes.input_size, sizes.input_size}};
    const TensorSpec pixels_out{DType::float32, {"images", 3, sizes.output_size, sizes.output_size}};
    if (kind == "text_embed") return {{{"text_ids", ids}}, {{"embeds", embeds}}, {}};
    if (kind == "vision_encoder")
        return {{{"pixels", pixels_in}}, {{"embeds", {f, {"images", sizes.input_tokens, sizes.hidden_size}}}}, {}};
    if (kind == "text_head") return {{{"hidden", hidden}}, {{"logits", text_logits}}, {}};
    if (kind == "text_draw") {
        return {{{"logits", text_logits}, {"noise", text_logits}, {"temperature", {DType::float32, {"rows"}}}},
                {{"text_ids", {DType::int32, {"rows"}}}, {"embeds", {f, {"rows", 1, sizes.hidden_size}}}},
                {}};
    }
    if (kind == "image_embed") return {{{"image_ids", ids}}, {{"embeds", embeds}}, {}};
    if (kind == "image_head") return {{{"hidden", hidden}}, {{"logits", {DType::float32, {"rows", num_ids}}}}, {}};
    if (kind == "image_draw") {
        return {{{"logits", {DType::float32, {"images", 2, num_ids}}},
                 {"noise", {DType::float32, {"images", num_ids}}},
                 {"cfg_weight", each},
                 {"temperature", each}},
                {{"image_ids", {DType::int32, {"images"}}}, {"embeds", {f, {"images", 2, sizes.hidden_size}}}},
                {}};
    }
    if (kind == "image_encoder") return {{{"pixels", pixels_out}}, {{"image_ids", drawn}}, {}};
    if (kind == "image_decoder") {
        return {sizes.num_ids ? TensorSpecs{{"image_ids", drawn}} : TensorSpecs{{"latents", latents(sizes)}}, {{"pixels", pixels_out}}, {}};
    }
    if (kind == "image_preview") return {{{"image_ids", drawn}}, {{"pixels", pixels_out}}, {}};
    return {{{"times", {DType::float32, {"steps"}}}}, time_outputs(sizes, "steps"), {}};
}

std::string python_tuple(const std::vector<std::string> &items) { return "(" + join(items) + (items.size() == 1 ? ",)" : ")"); }

std::string python_tuple_of_texts(const std::vector<std::string> &texts) {
    std::vector<std::string> shown;
    for (const std::string &text : texts) shown.push_back(python_repr(std::string_view(text)));
    return python_tuple(shown);
}

} // namespace

const std::vector<std::string> &dtype_names() {
    static const std::vector<std::string> names{"float32", "float16", "int64", "int32", "int8", "bool"};
    return names;
}

const char *name_of(DType dtype) { return dtype_names()[static_cast<size_t>(dtype)].c_str(); }

size_t size_of(DType dtype) {
    switch (dtype) {
    case DType::int64: return 8;
    case DType::float32:
    case DType::int32: return 4;
    case DType::float16: return 2;
    default: return 1;
    }
}

const std::vector<std::string> &graph_kinds() {
    static const std::vector<std::string> kinds{"text_embed",    "vision_encoder", "language_model", "text_head",     "text_draw",
                                                "image_embed",   "image_head",     "image_draw",     "image_encoder", "image_decoder",
                                                "image_preview", "time_embed",     "flow_step"};
    return kinds;
}

const std::vector<std::string> &flavours() {
    static const std::vector<std::string> names{"gqa", "gqa_cuda", "slice", "inplace", "cpu"};
    return names;
}

bool has_flavour(const std::string &kind, const std::string &flavour) {
    if (kind == "language_model") return !flavour.empty() && flavour != "cpu";
    return flavour.empty() || (flavour == "cpu" && (kind == "vision_encoder" || kind == "flow_step"));
}

Interface make_interface(const std::string &kind, const std::string &flavour, const Sizes &sizes, DType activations,
                         std::optional<DType> cache) {
    if (kind == "language_model") return language_model(flavour, sizes, activations, cache.value());
    if (kind == "flow_step") return flow_step(sizes, activations, cache.value());
    return plain(kind, sizes, activations);
}

std::string graph_name(const std::string &kind, const std::string &flavour) { return flavour.empty() ? kind : kind + "." + flavour; }

std::string python_repr(const TensorSpec &spec) {
    std::vector<std::string> sizes;
    for (const Size &size : spec.shape) {
        sizes.push_back(size.name.empty() ? std::to_string(size.number) : python_repr(std::string_view(size.name)));
    }
    return python_tuple({python_repr(std::string_view(name_of(spec.dtype))), python_tuple(sizes)});
}

std::string python_repr(const KvCache &cache) {
    return "KvCache(dtype=" + python_repr(std::string_view(name_of(cache.dtype))) + ", inputs=" + python_tuple_of_texts(cache.inputs) +
           ", outputs=" + python_tuple_of_texts(cache.outputs) + ", in_place=" + (cache.in_place ? "True" : "False") +
           ", ragged_append=" + (cache.ragged_append ? "True" : "False") + ")";
}

} // namespace janus
