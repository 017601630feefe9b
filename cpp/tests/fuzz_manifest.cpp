// Any bytes as a manifest: an Error or a manifest, nothing else.
#include <cstddef>
#include <cstdint>

#include "error.h"
#include "manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    try {
        janus::Manifest::parse({reinterpret_cast<const char *>(data), size}, "manifest.json");
    } catch (const janus::Error &) {
    }
    return 0;
}
