// libFuzzer: whatever the bytes are, a picture comes out whole, or Error with the status of pictures.
#include <cstdlib>
#include <new>

#include "../readers/picture_file.h"
#include "../src/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    try {
        const janus::Rgb picture = janus::decode_picture({reinterpret_cast<const char *>(data), size}, "input", false);
        if (picture.bytes.size() != size_t{3} * picture.width * picture.height || picture.bytes.empty()) std::abort();
    } catch (const janus::Error &error) {
        if (error.status != JANUS_IMAGE || error.message.empty()) std::abort();
    } catch (const std::bad_alloc &) {
    }
    return 0;
}
