#include "image_argument.h"

#include <cstring>

#include "guard.h"
#ifdef JANUS_WITH_READERS
#include "../readers/picture_file.h"
#endif

using namespace janus;

namespace {

void init_image(janus_image *image, size_t struct_size) { clear_struct(image, struct_size); }

#ifdef JANUS_WITH_READERS
// What a caller frees as a janus_image.
struct OwnedImage {
    explicit OwnedImage(Rgb picture) : image{sizeof(janus_image), picture.width, picture.height, 0, nullptr}, rgb(std::move(picture)) {
        image.rgb = rgb.bytes.data();
    }
    janus_image image; // the first member: its address is the whole's
    Rgb rgb;
};

std::vector<std::pair<std::string, std::string>> read_texts(const char *const *keys, const char *const *values, size_t count) {
    std::vector<std::pair<std::string, std::string>> texts;
    for (size_t i = 0; i < count; ++i) {
        texts.emplace_back(require(require(keys, "keys")[i], "a key"), require(require(values, "values")[i], "a value"));
    }
    return texts;
}
#else
[[noreturn]] void refuse() {
    throw Error(JANUS_BACKEND,
                "this library was built without picture files; build it with JANUS_READERS=ON, or pass janus_image yourself");
}
#endif

} // namespace

Rgb janus::read_image(const janus_image *image) {
    const janus_image ours = read_struct(image, init_image, "janus_image");
    const std::string size = std::to_string(ours.width) + "x" + std::to_string(ours.height) + " pixels";
    if (!ours.width || !ours.height) throw Error(JANUS_IMAGE, "the image is empty: " + size);
    if (uint64_t{ours.width} * ours.height > MAX_PIXELS)
        throw Error(JANUS_IMAGE, "the image has " + size + ", more than 80,000,000; scale it down first");
    const size_t line = size_t{3} * ours.width, stride = ours.stride ? ours.stride : line;
    if (stride < line)
        throw Error(JANUS_VALUE, "stride is " + std::to_string(stride) + "; expected 0 or at least 3 bytes for each of " +
                                     std::to_string(ours.width) + " pixels");
    require(ours.rgb, "rgb");
    Rgb picture{ours.width, ours.height, std::vector<uint8_t>(line * ours.height)};
    for (size_t y = 0; y < ours.height; ++y) std::memcpy(picture.bytes.data() + y * line, ours.rgb + y * stride, line);
    return picture;
}

extern "C" {

#ifdef JANUS_WITH_READERS
janus_status janus_image_read(const char *path, int32_t keep_orientation, janus_image **image) {
    return guard([&] {
        *require(image, "image") = nullptr;
        *image = &(new OwnedImage(read_picture(require(path, "path"), keep_orientation != 0)))->image;
    });
}

janus_status janus_image_decode(const void *data, size_t size, const char *name, int32_t keep_orientation, janus_image **image) {
    return guard([&] {
        *require(image, "image") = nullptr;
        const std::string_view bytes(static_cast<const char *>(require(data, "data")), size);
        *image = &(new OwnedImage(decode_picture(bytes, name ? name : "the image", keep_orientation != 0)))->image;
    });
}

void janus_image_free(janus_image *image) { delete reinterpret_cast<OwnedImage *>(image); }

janus_status janus_image_write_png(const janus_image *image, const char *path, const char *const *keys, const char *const *values,
                                   size_t num_texts) {
    return guard([&] { write_png(read_image(image), require(path, "path"), read_texts(keys, values, num_texts)); });
}

janus_status janus_image_encode_png(const janus_image *image, const char *const *keys, const char *const *values, size_t num_texts,
                                    janus_on_bytes on_bytes, void *user) {
    return guard([&] {
        require(on_bytes, "on_bytes");
        const std::string png = encode_png(read_image(image), read_texts(keys, values, num_texts));
        if (!on_bytes(png.data(), png.size(), user)) throw Error(JANUS_CANCELLED, "cancelled: on_bytes did not take the picture");
    });
}
#else
janus_status janus_image_read(const char *, int32_t, janus_image **) { return guard(refuse); }
janus_status janus_image_decode(const void *, size_t, const char *, int32_t, janus_image **) { return guard(refuse); }
void janus_image_free(janus_image *) {}
janus_status janus_image_write_png(const janus_image *, const char *, const char *const *, const char *const *, size_t) {
    return guard(refuse);
}
janus_status janus_image_encode_png(const janus_image *, const char *const *, const char *const *, size_t, janus_on_bytes, void *) {
    return guard(refuse);
}
#endif

} // extern "C"
