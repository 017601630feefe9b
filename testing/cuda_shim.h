// Enough of CUDA's language to run kernels.cu on a CPU: threads of a block are fibers that run in turn from barrier to barrier,
// blocks run one after the other. `backwards` turns the order of both round: what a race decides then comes out otherwise.

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct Dim {
    unsigned x, y;
};
static Dim gridDim, blockDim, blockIdx, threadIdx;

using std::ceil, std::exp, std::log, std::max;

static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
static float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
template <class Number>
static void atomicAdd(Number* place, Number value) {
    *place += value;
}
template <class Number>
static void atomicMax(Number* place, Number value) {
    *place = std::max(*place, value);
}

namespace shim {
constexpr std::size_t STACK = 64 * 1024;
struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    bool done;
};
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static Fiber* current;
static std::function<void()> body;

static void enter() {
    body();
    current->done = true;
    swapcontext(&current->context, &scheduler);
}

// 0, or 1 if some threads of a block wait at a barrier that others have left behind.
static int run_block(bool backwards) {
    const unsigned threads = blockDim.x * blockDim.y;
    if (fibers.size() < threads) fibers.resize(threads);
    for (unsigned i = 0; i < threads; ++i) {
        Fiber& fiber = fibers[i];
        fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    for (;;) {
        unsigned done = 0;
        for (unsigned turn = 0; turn < threads; ++turn) {
            const unsigned i = backwards ? threads - 1 - turn : turn;
            threadIdx = {i % blockDim.x, i / blockDim.x};
            current = &fibers[i];
            swapcontext(&scheduler, &current->context);
            done += current->done;
        }
        if (done == threads) return 0;
        if (done) return 1;
    }
}

template <class... Types, std::size_t... Index>
static int launch(void (*kernel)(Types...), const unsigned* sizes, void** arguments, bool backwards, std::index_sequence<Index...>) {
    const std::tuple<Types...> values{*(Types*)arguments[Index]...};
    body = [&] { std::apply(kernel, values); };
    gridDim = {sizes[0], sizes[1]};
    blockDim = {sizes[2], sizes[3]};
    const unsigned blocks = gridDim.x * gridDim.y;
    for (unsigned turn = 0; turn < blocks; ++turn) {
        const unsigned i = backwards ? blocks - 1 - turn : turn;
        blockIdx = {i % gridDim.x, i / gridDim.x};
        if (run_block(backwards)) return 1;
    }
    return 0;
}
}  // namespace shim

static void __syncthreads() { swapcontext(&shim::current->context, &shim::scheduler); }

// `sizes`: grid and block, x and y of each. `arguments`: addresses of the values, as the driver takes them.
template <class... Types>
static int launch(void (*kernel)(Types...), const unsigned* sizes, void** arguments, int backwards) {
    return shim::launch(kernel, sizes, arguments, backwards != 0, std::index_sequence_for<Types...>{});
}
