// WebP over libwebp. Pillow decodes into a canvas of four channels; the first frame alone, without alpha, has the same colours.
#include <webp/decode.h>
#include <webp/demux.h>

#include <algorithm>
#include <memory>
#include <new>

#include "byte_order.h"
#include "stored_picture.h"

namespace janus {
namespace {

using namespace std::string_literals;

// VP8X's flags for a profile, EXIF and XMP.
constexpr int METADATA_FLAGS = 0x2C;

// `pixels` is a whole file without profile, EXIF and XMP. `complete` says whether the file's end was there.
struct Parts {
    std::string pixels;
    std::string_view exif;
    bool complete;
};

Parts split(std::string_view file) {
    const uint64_t stated = uint64_t{8} + read_little(file, 4, 4);
    Parts parts{"RIFF\0\0\0\0WEBP"s, {}, file.size() >= stated};
    for (uint64_t at = 12; at + 8 <= std::min<uint64_t>(file.size(), stated);) {
        const std::string_view name = slice(file, at, at + 4);
        const uint64_t size = read_little(file, static_cast<size_t>(at) + 4, 4), end = at + 8 + size + size % 2;
        if (name == "EXIF") {
            if (parts.exif.empty()) parts.exif = slice(file, at + 8, end);
        } else if (name != "ICCP" && name != "XMP ") {
            std::string chunk(slice(file, at, end));
            if (name == "VP8X" && chunk.size() > 8) chunk[8] = static_cast<char>(chunk[8] & ~METADATA_FLAGS);
            parts.pixels += chunk;
        }
        at = end;
    }
    parts.pixels.replace(4, 4, little_bytes(static_cast<uint32_t>(parts.pixels.size() - 8)));
    return parts;
}

struct DeleteDemuxer {
    void operator()(WebPDemuxer *demuxer) const { WebPDemuxDelete(demuxer); }
};

class Frame {
public:
    explicit Frame(const WebPDemuxer *demuxer) {
        if (!WebPDemuxGetFrame(demuxer, 1, &frame_)) throw Damage{"it has no frame"};
    }
    ~Frame() { WebPDemuxReleaseIterator(&frame_); }
    Frame(const Frame &) = delete;
    Frame &operator=(const Frame &) = delete;

    void decode_into(Rgb &canvas) {
        WebPDecoderConfig config;
        if (!WebPInitDecoderConfig(&config)) throw Damage{"libwebp is another than this library was built for"};
        const size_t stride = size_t{3} * canvas.width;
        // The demuxer has checked that the frame lies within the canvas, and the decoder that its pixels fit.
        const size_t offset = static_cast<size_t>(frame_.y_offset) * stride + size_t{3} * static_cast<size_t>(frame_.x_offset);
        config.output.colorspace = MODE_RGB;
        config.output.is_external_memory = 1;
        config.output.u.RGBA = {canvas.bytes.data() + offset, static_cast<int>(stride), canvas.bytes.size() - offset};
        const VP8StatusCode status = WebPDecode(frame_.fragment.bytes, frame_.fragment.size, &config);
        if (status == VP8_STATUS_OUT_OF_MEMORY) throw std::bad_alloc();
        if (status != VP8_STATUS_OK) throw Damage{"broken data stream"};
    }

private:
    WebPIterator frame_{};
};

Rgb read_pixels(const Source &source, std::string_view file) {
    const std::string_view first = slice(file, 12, 16);
    if (first != "VP8 " && first != "VP8L" && first != "VP8X") throw Damage{};
    const WebPData data{reinterpret_cast<const uint8_t *>(file.data()), file.size()};
    const std::unique_ptr<WebPDemuxer, DeleteDemuxer> demuxer(WebPDemux(&data));
    if (!demuxer) throw Damage{"its chunks are damaged"};
    const uint32_t width = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH), height = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT);
    check_size(source, width, height);
    Rgb canvas{width, height, std::vector<uint8_t>(size_t{3} * width * height)};
    Frame(demuxer.get()).decode_into(canvas);
    return canvas;
}

} // namespace

StoredPicture read_webp(const Source &source) {
    const Parts parts = split(source.data);
    try {
        return {read_pixels(source, parts.pixels), std::string(parts.exif)};
    } catch (const Damage &damage) {
        refuse_damaged(source, parts.complete, std::nullopt, damage.reason);
    }
}

} // namespace janus
