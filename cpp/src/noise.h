// Noise that is the same in Python, CUDA and C++: Philox4x32-10 bits as Gumbel or normal numbers. See docs/bundle.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace janus {

// Ten rounds over a counter (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);
// Of one draw: `count` numbers -log(-log u).
std::vector<float> gumbel(uint64_t seed, uint32_t step, size_t count);
// Standard normal numbers, as the noise of step 0.
std::vector<float> normal(uint64_t seed, size_t count);

} // namespace janus
