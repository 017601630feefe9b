// The loop's own kernels, one for each method of `device.Kernels`, compiled at run time by NVRTC; no headers.
// `cuda_kernels.py` launches them: its table of parameters is this file's, and a test compares the two.
// Letters: R rows of the decoder, n drawn ids a step, V ids, H heads, S new tokens, P cache length, d head size.

typedef int int32;
typedef long long int64;
typedef unsigned int uint32;
typedef unsigned long long uint64;
typedef float float32;
typedef double float64;

// `noise.py`: Philox4x32-10 under key = seed, counter = (step, block of four ids, 0, 0). A thread draws four ids of row
// blockIdx.y, which has a seed, a step and settings of its own.
extern "C" __global__ void gumbel(float32* noise, const uint64* seeds, const int32* step, const float64* sampling, int32 num_ids) {
    const int64 first = 4 * ((int64)blockIdx.x * blockDim.x + threadIdx.x);
    if (first >= num_ids) return;
    const int64 count = first + 4 <= num_ids ? 4 : num_ids - first;
    float32* place = noise + (int64)blockIdx.y * num_ids + first;
    if (sampling[3 * blockIdx.y] != 0.0) {
        for (int32 i = 0; i < count; ++i) place[i] = 0.0f;
        return;
    }
    const uint64 seed = seeds[blockIdx.y];
    uint32 key0 = (uint32)seed, key1 = (uint32)(seed >> 32);
    uint32 word[4] = {(uint32)step[blockIdx.y], (uint32)(first / 4), 0, 0};
    for (int32 round = 0; round < 10; ++round) {
        const uint64 a = (uint64)word[0] * 0xD2511F53u, b = (uint64)word[2] * 0xCD9E8D57u;
        word[0] = (uint32)(b >> 32) ^ word[1] ^ key0;
        word[1] = (uint32)b;
        word[2] = (uint32)(a >> 32) ^ word[3] ^ key1;
        word[3] = (uint32)a;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    // Unrolled, `word` stays in registers.
#pragma unroll
    for (int32 i = 0; i < 4; ++i) {
        const float64 uniform = ((float64)(word[i] >> 8) + 0.5) / 16777216.0;
        if (i < count) place[i] = (float32)(-log(-log(uniform)));
    }
}

// Blocks of a row (blockIdx.y) share its ids; `rows_each` rows in turn share a step. All who find something write the same number, unless
// an earlier step did.
extern "C" __global__ void check(const float32* logits, const int32* active, const int32* step, int32* bad, int32 num_ids,
                                 int32 rows_each) {
    const int32 number = step[blockIdx.y / rows_each] + 1;
    int32* found = bad + blockIdx.y;
    if (active[blockIdx.y] == 0 || (*found != 0 && *found != number)) return;
    const float32* row = logits + (int64)blockIdx.y * num_ids;
    for (int64 id = (int64)blockIdx.x * blockDim.x + threadIdx.x; id < num_ids; id += (int64)gridDim.x * blockDim.x)
        if ((__float_as_uint(row[id]) & 0x7F800000u) == 0x7F800000u) *found = number;
}

// ---- keep and draw: one block a drawn row ----

static const int32 BINS = 256;
// Copies of the histogram, by thread: most scores share their highest byte, and one counter for all of them would be a queue.
static const int32 COPIES = 8;
// Probabilities are counted in whole parts of the likeliest id's, so that a sum is the same in every order of threads.
// 2^46 parts for each of up to 2^17 ids fit 64 bits; an id below half a part is taken to have none.
static const float64 PARTS = 70368744177664.0;
// Shared memory adds 32 bits by itself, and 64 by trying again and again. So a sum is kept in digits of 18 bits, each with a counter of its
// own: of 2^17 ids 2^14 come to one copy, and 2^14 such digits fit 32 bits.
static const int32 DIGITS = 3, DIGIT_BITS = 18;

struct Row {
    const float32 *cond, *uncond;  // without guidance only `cond`
    float32 cfg_weight, temperature;
    int32 num_ids;
};

// Of picture or answer `i`: a pair of rows with guidance, else a row.
static __device__ Row row_of(int32 i, const float32* logits, const float32* cfg_weight, const float32* temperature, int32 num_ids,
                             bool guided) {
    Row row;
    row.cond = logits + (int64)i * num_ids * (guided ? 2 : 1);
    row.uncond = guided ? row.cond + num_ids : 0;
    row.cfg_weight = cfg_weight[i];
    row.temperature = temperature[i];
    row.num_ids = num_ids;
    return row;
}

struct Shared {
    uint32 copies[DIGITS][BINS * COPIES];
    uint64 bins[BINS];
    uint64 above;
    uint32 digit;
    uint32 largest;
};

// Rounded step by step as NumPy's fp32 does; adding 0 makes 0 of -0, which compares equal to it.
static __device__ float32 score_of(const Row& row, int32 id) {
    float32 score = row.cond[id];
    if (row.uncond) score = __fadd_rn(row.uncond[id], __fmul_rn(row.cfg_weight, __fsub_rn(score, row.uncond[id])));
    return __fadd_rn(__fdiv_rn(score, row.temperature), 0.0f);
}

// An unsigned number in the order of floats.
static __device__ uint32 order_of(float32 score) {
    const uint32 bits = __float_as_uint(score);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Larger is likelier, and of equal scores the lower id: no two keys are equal.
static __device__ uint64 key_of(float32 score, int32 id) { return (uint64)order_of(score) << 32 | (0xFFFFFFFFu - (uint32)id); }

static __device__ uint64 parts_of(float32 score, float32 largest) {
    return (uint64)(exp((float64)score - (float64)largest) * PARTS + 0.5);
}

// Radix select, a byte a pass from the highest to that at `last_shift`: of the ids whose keys are at least `lowest`, from the
// largest key down, the key at which their weights reach the target. By count the weights are 1 and the target is `amount`;
// by parts the target is `amount` of all parts. Bits below `last_shift` are 0. Every thread of the block returns the same.
template <bool by_parts>
static __device__ uint64 select(const Row& row, Shared& shared, float64 amount, uint64 lowest, float32 largest, int32 last_shift) {
    uint64 chosen = 0, above = 0, target = (uint64)amount;
    for (int32 shift = 56; shift >= last_shift; shift -= 8) {
        for (int32 i = threadIdx.x; i < BINS * COPIES; i += blockDim.x)
            for (int32 digit = 0; digit < (by_parts ? DIGITS : 1); ++digit) shared.copies[digit][i] = 0;
        __syncthreads();
        // NaN reaches no target; then the search ends anywhere. Only now has every thread read the last pass's digit.
        if (threadIdx.x == 0) shared.digit = 0, shared.above = above;
        for (int32 id = threadIdx.x; id < row.num_ids; id += blockDim.x) {
            const float32 score = score_of(row, id);
            const uint64 key = key_of(score, id);
            if (key < lowest || (shift < 56 && (key ^ chosen) >> (shift + 8))) continue;
            const int32 counter = (int32)(key >> shift & 255) * COPIES + threadIdx.x % COPIES;
            uint64 rest = by_parts ? parts_of(score, largest) : 1;
            // NaN comes to any number of parts.
            for (int32 digit = 0; digit < DIGITS && rest != 0; ++digit, rest >>= DIGIT_BITS)
                atomicAdd(&shared.copies[digit][counter], (uint32)rest & ((1u << DIGIT_BITS) - 1));
        }
        __syncthreads();
        for (int32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) {
            uint64 sum = 0;
            for (int32 i = bin * COPIES; i < (bin + 1) * COPIES; ++i)
                for (int32 digit = 0; digit < (by_parts ? DIGITS : 1); ++digit) sum += (uint64)shared.copies[digit][i] << (digit * DIGIT_BITS);
            shared.bins[bin] = sum;
        }
        __syncthreads();
        if (by_parts && shift == 56) {
            uint64 total = 0;
            for (int32 bin = 0; bin < BINS; ++bin) total += shared.bins[bin];
            const float64 wanted = ceil(amount * (float64)total);
            target = wanted < 1.0 ? 1 : wanted < (float64)total ? (uint64)wanted : total;
        }
        for (int32 bin = threadIdx.x; bin < BINS; bin += blockDim.x) {
            uint64 higher = above;
            for (int32 i = BINS - 1; i > bin; --i) higher += shared.bins[i];
            if (higher < target && target <= higher + shared.bins[bin]) {
                shared.digit = bin;
                shared.above = higher;
            }
        }
        __syncthreads();
        above = shared.above;
        chosen |= (uint64)shared.digit << shift;
    }
    return chosen;
}

// sampling = greedy, top_k, top_p. An id stays if its key is at least `lowest`, first the k-th (all ids that tie with it
// stay), then the last that top_p takes.
extern "C" __global__ void __launch_bounds__(1024) keep(float32* noise, const float32* logits, const float32* cfg_weight,
                                                        const float32* temperature, const float64* sampling, int32 num_ids,
                                                        int32 guided) {
    __shared__ Shared shared;
    sampling += 3 * blockIdx.x;
    const float64 top_k = sampling[1], top_p = sampling[2];
    const bool by_count = top_k >= 1.0 && top_k < (float64)num_ids, by_parts = top_p < 1.0;
    if (sampling[0] != 0.0 || !(by_count || by_parts)) return;
    const Row row = row_of(blockIdx.x, logits, cfg_weight, temperature, num_ids, guided != 0);

    uint64 lowest = 0;
    if (by_count) lowest = select<false>(row, shared, top_k, 0, 0.0f, 32);
    if (by_parts) {
        if (threadIdx.x == 0) shared.largest = 0;
        __syncthreads();
        uint32 order = 0;
        for (int32 id = threadIdx.x; id < num_ids; id += blockDim.x) order = max(order, order_of(score_of(row, id)));
        atomicMax(&shared.largest, order);
        __syncthreads();
        order = shared.largest;
        const float32 largest = __uint_as_float(order & 0x80000000u ? order ^ 0x80000000u : ~order);
        lowest = select<true>(row, shared, top_p, lowest, largest, 0);
    }
    float32* place = noise + (int64)blockIdx.x * num_ids;
    for (int32 id = threadIdx.x; id < num_ids; id += blockDim.x)
        if (key_of(score_of(row, id), id) < lowest) place[id] = __uint_as_float(0xFF800000u);
}

static const int32 WARP = 32;

// The likeliest id of guided logits and noise, and its row of `table` [num_ids, vectors] into both rows of the picture in `embeds`. A vector
// is 16 bytes. Of NaN it draws any id that there is: `check` tells the host.
extern "C" __global__ void __launch_bounds__(1024) draw(const float32* logits, const float32* noise, const float32* cfg_weight,
                                                        const float32* temperature, const uint4* table, int32* ids, uint4* embeds,
                                                        int32 num_ids, int32 vectors) {
    __shared__ uint64 keys[1024];
    const Row row = row_of(blockIdx.x, logits, cfg_weight, temperature, num_ids, true);
    noise += (int64)blockIdx.x * num_ids;
    uint64 largest = 0;
    // Unrolled, loads of several ids are under way at once: one block waits for memory more than it computes.
#pragma unroll 4
    for (int32 id = threadIdx.x; id < num_ids; id += blockDim.x)
        largest = max(largest, key_of(__fadd_rn(score_of(row, id), noise[id]), id));
    keys[threadIdx.x] = largest;
    __syncthreads();
    if (threadIdx.x < WARP) {
        for (int32 i = threadIdx.x; i < (int32)blockDim.x; i += WARP) largest = max(largest, keys[i]);
        keys[threadIdx.x] = largest;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int32 i = 0; i < WARP; ++i) largest = max(largest, keys[i]);
        keys[0] = largest;
    }
    __syncthreads();
    const int32 id = (int32)(0xFFFFFFFFu - (uint32)keys[0]);
    if (threadIdx.x == 0) ids[blockIdx.x] = id;
    const uint4* source = table + (int64)id * vectors;
    uint4* target = embeds + (int64)blockIdx.x * 2 * vectors;
    for (int32 i = threadIdx.x; i < vectors; i += blockDim.x) target[i] = target[vectors + i] = source[i];
}

// ---- what a step leaves behind ----

// log and host_bad are memory of the host, which is read over PCIe slowly: here it is only written.
extern "C" __global__ void record(const int32* ids, int32* log, int32* step, const int32* bad, int32* host_bad, int32 num_pictures,
                                  int32 num_steps, int32 num_rows) {
    const int32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < num_rows) host_bad[i] = bad[i];
    if (i >= num_pictures) return;
    const int32 now = step[i];
    if (now >= 0 && now < num_steps) log[(int64)now * num_pictures + i] = ids[i];
    step[i] = now + 1;
}

// cache [tensors, R, H, P, d] from new [tensors, fresh_stride, H, S, d], of which `fresh_rows` count. blockIdx.y: a tensor's row. A vector is
// 16 bytes, a head `vectors`.
extern "C" __global__ void write_cache(uint4* cache, const uint4* fresh, const int32* starts, const int32* counts, int32 slot, int32 rows,
                                       int32 fresh_rows, int32 fresh_stride, int32 heads, int32 length, int32 tokens, int32 vectors) {
    const int32 tensor = blockIdx.y / fresh_rows, row = blockIdx.y % fresh_rows;
    const int32 start = starts[row], count = counts[row];
    const uint32 i = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32 vector = i % (uint32)vectors, token = i / (uint32)vectors % (uint32)tokens, head = i / (uint32)vectors / (uint32)tokens;
    const int64 position = (int64)start + token;
    if (head >= (uint32)heads || (int64)token >= count || position < 0 || position >= length) return;
    const int64 source = ((((int64)tensor * fresh_stride + row) * heads + head) * tokens + token) * vectors + vector;
    const int64 target = ((((int64)tensor * rows + slot + row) * heads + head) * length + position) * vectors + vector;
    cache[target] = fresh[source];
}

// A thread clears a vector; blockIdx.y: a tensor's row.
extern "C" __global__ void clear_cache(uint4* cache, const int32* starts, int32 rows, int32 heads, int32 length, int32 vectors) {
    const int64 i = (int64)blockIdx.x * blockDim.x + threadIdx.x, size = (int64)heads * length * vectors;
    if (i >= size || i / vectors % length < starts[blockIdx.y % rows]) return;
    const uint4 zero = {0, 0, 0, 0};
    cache[blockIdx.y * size + i] = zero;
}

// Sizes and strides in vectors of 16 bytes. A warp (threadIdx.x) moves a part of one piece; blockIdx.y shares out long pieces.
extern "C" __global__ void copy_2d(const uint4* source, uint4* target, int64 count, int64 size, int64 source_stride, int64 target_stride) {
    const int64 piece = (int64)blockIdx.x * blockDim.y + threadIdx.y;
    if (piece >= count) return;
    for (int64 i = (int64)blockIdx.y * blockDim.x + threadIdx.x; i < size; i += (int64)gridDim.y * blockDim.x)
        target[piece * target_stride + i] = source[piece * source_stride + i];
}

// Zero is all bits zero, so a mask is known by the bytes of its numbers: 2 or 4.
extern "C" __global__ void advance_slice(int32* position_ids, void* past_mask, const int32* active, int32 rows, int32 length,
                                         int32 itemsize) {
    const int32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows || active[row] == 0) return;
    const int32 position = position_ids[row];
    if (position >= 0 && position < length) {
        const int64 place = (int64)row * length + position;
        if (itemsize == 2) ((unsigned short*)past_mask)[place] = 0;
        else ((uint32*)past_mask)[place] = 0;
    }
    position_ids[row] = position + 1;
}

extern "C" __global__ void advance_inplace(int64* position_ids, int64* write_indices, bool* attn_mask, const int32* active, int32 rows,
                                           int32 length) {
    const int32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows || active[row] == 0) return;
    position_ids[row] += 1;
    const int64 next = write_indices[row] + 1;
    write_indices[row] = next;
    if (next >= 0 && next < length) attn_mask[(int64)row * length + next] = true;
}

extern "C" __global__ void advance_gqa(int32* seqlens_k, const int32* active, int32 rows) {
    const int32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row < rows) seqlens_k[row] += active[row];
}
