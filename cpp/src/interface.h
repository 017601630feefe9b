// Inputs and outputs of every graph, as functions of a model's sizes: the counterpart of janus_runtime/bundle/interface.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace janus {

enum class DType { float32, float16, int64, int32, int8, boolean };

const std::vector<std::string> &dtype_names();
const char *name_of(DType dtype);
size_t size_of(DType dtype);

// A number, or the name of a size that varies between calls.
struct Size {
    Size(int64_t size) : number(size) {}
    Size(std::string varies) : name(std::move(varies)) {}
    Size(const char *varies) : name(varies) {}
    bool operator==(const Size &other) const { return number == other.number && name == other.name; }

    int64_t number = 0;
    std::string name;
};

struct TensorSpec {
    DType dtype;
    std::vector<Size> shape;
    bool operator==(const TensorSpec &other) const { return dtype == other.dtype && shape == other.shape; }
};

// In the order that the graph has them.
using TensorSpecs = std::vector<std::pair<std::string, TensorSpec>>;

struct KvCache {
    DType dtype;
    std::vector<std::string> inputs;
    std::vector<std::string> outputs;
    bool in_place;
    bool ragged_append;
    bool operator==(const KvCache &other) const {
        return dtype == other.dtype && inputs == other.inputs && outputs == other.outputs && in_place == other.in_place &&
               ragged_append == other.ragged_append;
    }
};

struct Sizes {
    int64_t num_layers, hidden_size, num_heads, head_size, vocab_size, input_size, input_tokens, output_size, output_tokens;
    std::optional<int64_t> num_ids; // none for JanusFlow, which draws latents
    int64_t latent_channels = 0, latent_size = 0, condition_size = 0;
};

struct Interface {
    TensorSpecs inputs;
    TensorSpecs outputs;
    std::optional<KvCache> cache;
};

const std::vector<std::string> &graph_kinds();
const std::vector<std::string> &flavours();
// Whether graphs of this kind come in this flavour, which is empty for the form that every backend takes.
bool has_flavour(const std::string &kind, const std::string &flavour);
// What a graph of this kind takes and gives. `activations` is the dtype of its embeddings and hidden states; `cache` is the dtype of keys
// and values of graphs that have them.
Interface make_interface(const std::string &kind, const std::string &flavour, const Sizes &sizes, DType activations,
                         std::optional<DType> cache);
std::string graph_name(const std::string &kind, const std::string &flavour);

// As Python writes them.
std::string python_repr(const TensorSpec &spec);
std::string python_repr(const KvCache &cache);

} // namespace janus
