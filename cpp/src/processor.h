// Which processor this is: ONNX Runtime chooses its kernels by that.
#pragma once

namespace janus {

// Whether products of 8 bits are added four at a time in 32 bits, not two in 16. False where the system does not tell.
bool has_vnni();

} // namespace janus
