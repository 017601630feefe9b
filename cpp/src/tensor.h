// Tensors in host memory. ONNX Runtime reads and writes them in place.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "interface.h"

namespace janus {

using Shape = std::vector<int64_t>;

inline size_t count_numbers(const Shape &shape) {
    size_t count = 1;
    for (const int64_t size : shape) count *= static_cast<size_t>(size);
    return count;
}

// Somebody's memory as a tensor.
struct View {
    DType dtype;
    Shape shape;
    void *data;

    size_t bytes() const { return count_numbers(shape) * size_of(dtype); }
    // [1, …] of it.
    View as_batch() const {
        View batch = *this;
        batch.shape.insert(batch.shape.begin(), 1);
        return batch;
    }
};

class Tensor {
public:
    Tensor() = default;
    // Zeros, which cost memory where they are written to only.
    Tensor(DType dtype, Shape shape)
        : dtype_(dtype), shape_(std::move(shape)), memory_(std::calloc(count_numbers(shape_) + !count_numbers(shape_), size_of(dtype))) {
        if (!memory_) throw std::bad_alloc();
    }

    DType dtype() const { return dtype_; }
    const Shape &shape() const { return shape_; }
    size_t bytes() const { return count_numbers(shape_) * size_of(dtype_); }
    View view() const { return {dtype_, shape_, memory_.get()}; }
    // Of index i of the first axis.
    char *at(int64_t i) const {
        return static_cast<char *>(memory_.get()) + static_cast<size_t>(i) * (bytes() / static_cast<size_t>(shape_[0]));
    }
    // Indexes from `begin` on of the first axis.
    View slice(int64_t begin, int64_t count) const {
        Shape shape = shape_;
        shape[0] = count;
        return {dtype_, std::move(shape), at(begin)};
    }
    template <typename Number> Number *as() const { return static_cast<Number *>(memory_.get()); }

private:
    struct Free {
        void operator()(void *memory) const { std::free(memory); }
    };
    DType dtype_ = DType::float32;
    Shape shape_;
    std::unique_ptr<void, Free> memory_;
};

} // namespace janus
