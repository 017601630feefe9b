#include "decoder.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace janus {
namespace {

constexpr int GRID = 32;

// A head's places lie far apart: with large pages a few tokens would take the memory of all.
void avoid_large_pages(const View &view) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), address = reinterpret_cast<uintptr_t>(view.data);
    const uintptr_t begin = (address + page - 1) / page * page, end = (address + view.bytes()) / page * page;
    if (begin < end) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_NOHUGEPAGE);
}

} // namespace

Decoder::Decoder(Engines &engines, int rows, int max_length)
    : engine_(engines["language_model.gqa"]), max_length_(max_length), lengths_(static_cast<size_t>(rows), 0) {
    const LanguageModel &sizes = engines.manifest().language_model;
    const KvCache &names = engine_.graph().cache.value();
    for (size_t i = 0; i < names.inputs.size(); ++i) {
        cache_.emplace_back(names.dtype, Shape{rows, sizes.num_heads, max_length, sizes.head_size});
        avoid_large_pages(cache_.back().view());
    }
}

Tensor Decoder::prefill(int row, const Tensor &embeds) {
    const int count = static_cast<int>(embeds.shape()[0]), start = length(row);
    Binding binding = bind(row, 1);
    Tensor hidden;
    for (int position = start; position < start + count;) {
        const int cut = std::min((position / GRID + 1) * GRID, start + count);
        hidden = run(binding, embeds.slice(position - start, cut - position).as_batch(), {position});
        position = cut;
    }
    lengths_[static_cast<size_t>(row)] = start + count;
    return hidden;
}

Tensor Decoder::step(const Tensor &embeds) {
    if (!all_rows_) all_rows_.emplace(bind(0, static_cast<int>(lengths_.size())));
    View tokens = embeds.view();
    tokens.shape.insert(tokens.shape.begin() + 1, 1);
    Tensor hidden = run(*all_rows_, tokens, lengths_);
    for (int32_t &length : lengths_) ++length;
    return hidden;
}

void Decoder::copy(int source, int target) {
    const auto used = static_cast<size_t>(length(source));
    for (const Tensor &tensor : cache_) {
        const auto heads = static_cast<size_t>(tensor.shape()[1]), places = static_cast<size_t>(tensor.shape()[2]);
        const size_t place = static_cast<size_t>(tensor.shape()[3]) * size_of(tensor.dtype());
        for (size_t head = 0; head < heads; ++head) {
            std::memcpy(tensor.at(target) + head * places * place, tensor.at(source) + head * places * place, used * place);
        }
    }
    truncate(target, length(source));
}

Binding Decoder::bind(int row, int count) {
    Binding binding(engine_);
    const KvCache &names = engine_.graph().cache.value();
    for (size_t i = 0; i < cache_.size(); ++i) {
        const View rows = cache_[i].slice(row, count);
        binding.bind_input(names.inputs[i], rows);
        binding.bind_output(names.outputs[i], rows);
    }
    return binding;
}

Tensor Decoder::run(Binding &binding, const View &embeds, const std::vector<int32_t> &before) {
    const int64_t rows = embeds.shape[0], tokens = embeds.shape[1];
    Tensor places(DType::int32, {rows}), last(DType::int32, {rows}), longest(DType::int32, {});
    for (int64_t row = 0; row < rows; ++row) {
        places.as<int32_t>()[row] = static_cast<int32_t>((row + 1) * tokens - 1);
        last.as<int32_t>()[row] = before[static_cast<size_t>(row)] + static_cast<int32_t>(tokens) - 1;
    }
    *longest.as<int32_t>() = *std::max_element(last.as<int32_t>(), last.as<int32_t>() + rows) + 1;
    Tensor hidden(engine_.graph().activations, {rows, embeds.shape[2]});
    binding.bind_input("embeds", embeds);
    binding.bind_input("places", places.view());
    binding.bind_input("seqlens_k", last.view());
    binding.bind_input("total_sequence_length", longest.view());
    binding.bind_output("hidden", hidden.view());
    binding.run();
    return hidden;
}

} // namespace janus
