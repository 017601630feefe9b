// JPEG over libjpeg-turbo, with the defaults that Pillow leaves alone.
#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <new>

// It needs size_t and FILE from <cstdio>.
#include <jpeglib.h>

#include <jerror.h>

#include "jpeg_header.h"
#include "stored_picture.h"

namespace janus {
namespace {

// A progressive file of many scans, each a few bytes, would keep a core busy for minutes. Encoders write about ten.
constexpr int MAX_SCANS = 500;
// As much as Pillow hands over at once. Damage behind the last row fails a picture only if it lies in the block that is there by then.
constexpr size_t BLOCK_BYTES = 65536;

struct Decoder {
    jpeg_decompress_struct info{};
    jpeg_error_mgr errors{};
    jpeg_source_mgr source{};
    jpeg_progress_mgr progress{};
    // What libjpeg has not been given, and how much of it it skips.
    std::string_view unread;
    size_t skip = 0;
    std::jmp_buf on_error{};
    char message[JMSG_LENGTH_MAX] = "";

    Decoder() = default;
    ~Decoder() { jpeg_destroy_decompress(&info); }
    Decoder(const Decoder &) = delete;
    Decoder &operator=(const Decoder &) = delete;
};

// Where rows go. `line` has room for a row of four channels.
struct Target {
    uint8_t *rgb;
    uint8_t *line;
    uint32_t width;
    uint32_t height;
    int channels;
};

enum class Outcome { done, cut_off, failed };

} // namespace

extern "C" {

// libjpeg would print a message and exit the process. No function that `janus_jpeg_fail` leaves behind has anything to destroy.
[[noreturn]] static void janus_jpeg_fail(j_common_ptr info) {
    auto *decoder = static_cast<Decoder *>(info->client_data);
    info->err->format_message(info, decoder->message);
    std::longjmp(decoder->on_error, 1);
}

static void janus_jpeg_ignore_message(j_common_ptr) {}

static void janus_jpeg_do_nothing(j_decompress_ptr) {}

// libjpeg suspends: what it was called for fails, and goes on when it is called again.
static boolean janus_jpeg_suspend(j_decompress_ptr) { return FALSE; }

static void janus_jpeg_skip(j_decompress_ptr info, long size) {
    auto *decoder = static_cast<Decoder *>(info->client_data);
    const size_t wanted = static_cast<size_t>(std::max(size, 0L)), there = std::min(wanted, info->src->bytes_in_buffer);
    info->src->next_input_byte += there;
    info->src->bytes_in_buffer -= there;
    decoder->skip = wanted - there;
}

static void janus_jpeg_count_scans(j_common_ptr info) {
    auto *decoder = static_cast<Decoder *>(info->client_data);
    if (decoder->info.input_scan_number <= MAX_SCANS) return;
    std::snprintf(decoder->message, sizeof decoder->message, "more than %d scans", MAX_SCANS);
    std::longjmp(decoder->on_error, 1);
}

} // extern "C"

namespace {

void open_decoder(Decoder &decoder, std::string_view file) {
    decoder.info.err = jpeg_std_error(&decoder.errors);
    decoder.errors.error_exit = janus_jpeg_fail;
    decoder.errors.output_message = janus_jpeg_ignore_message;
    decoder.info.client_data = &decoder;
    jpeg_create_decompress(&decoder.info);
    decoder.source.init_source = janus_jpeg_do_nothing;
    decoder.source.fill_input_buffer = janus_jpeg_suspend;
    decoder.source.skip_input_data = janus_jpeg_skip;
    decoder.source.resync_to_restart = jpeg_resync_to_restart;
    decoder.source.term_source = janus_jpeg_do_nothing;
    decoder.source.next_input_byte = reinterpret_cast<const JOCTET *>(file.data());
    decoder.unread = file;
    decoder.info.src = &decoder.source;
    decoder.progress.progress_monitor = janus_jpeg_count_scans;
    decoder.info.progress = &decoder.progress;
}

// Gives libjpeg the next block, which stands in memory behind what it has. Returns false if there is none.
bool feed(Decoder &decoder) {
    const size_t size = std::min(decoder.unread.size(), BLOCK_BYTES);
    decoder.unread.remove_prefix(size);
    decoder.source.bytes_in_buffer += size;
    janus_jpeg_skip(&decoder.info, static_cast<long>(decoder.skip));
    return size > 0;
}

void grey_to_rgb(const uint8_t *in, uint8_t *out, uint32_t width) {
    for (uint32_t x = 0; x < width; ++x, out += 3) out[0] = out[1] = out[2] = in[x];
}

// Pillow takes all four channels for inverted, as Adobe writes them, and rounds products over 255 as here.
void cmyk_to_rgb(const uint8_t *in, uint8_t *out, uint32_t width) {
    for (uint32_t x = 0; x < width; ++x, in += 4, out += 3) {
        const int light = in[3];
        for (int channel = 0; channel < 3; ++channel) {
            const int product = (255 - in[channel]) * light + 128;
            out[channel] = static_cast<uint8_t>(light - ((product + (product >> 8)) >> 8));
        }
    }
}

bool fits(const jpeg_decompress_struct &info, const Target &target) {
    return info.image_width == target.width && info.image_height == target.height && info.num_components == target.channels;
}

J_COLOR_SPACE wanted_colours(int channels) {
    if (channels == 1) return JCS_GRAYSCALE;
    return channels == 3 ? JCS_RGB : JCS_CMYK;
}

bool read_header(Decoder &decoder) {
    int result = JPEG_HEADER_TABLES_ONLY;
    while (result == JPEG_HEADER_TABLES_ONLY) result = jpeg_read_header(&decoder.info, FALSE);
    return result != JPEG_SUSPENDED;
}

bool read_row(Decoder &decoder, const Target &target) {
    uint8_t *rgb = target.rgb + size_t{3} * target.width * decoder.info.output_scanline;
    JSAMPROW row = target.channels == 3 ? rgb : target.line;
    if (jpeg_read_scanlines(&decoder.info, &row, 1) != 1) return false;
    if (target.channels == 1) grey_to_rgb(target.line, rgb, target.width);
    if (target.channels == 4) cmyk_to_rgb(target.line, rgb, target.width);
    return true;
}

// The functions that an error jumps out of are this one and those it calls: their variables need no destructors.
Outcome decode(Decoder &decoder, std::string_view file, const Target &target) {
    if (setjmp(decoder.on_error) != 0) return Outcome::failed;
    open_decoder(decoder, file);
    while (!read_header(decoder)) {
        if (!feed(decoder)) return Outcome::cut_off;
    }
    if (!fits(decoder.info, target)) return Outcome::failed;
    decoder.info.out_color_space = wanted_colours(target.channels);
    while (!jpeg_start_decompress(&decoder.info)) {
        if (!feed(decoder)) return Outcome::cut_off;
    }
    while (decoder.info.output_scanline < target.height) {
        if (!read_row(decoder, target) && !feed(decoder)) return Outcome::cut_off;
    }
    // Damage behind the last row fails the picture, as with Pillow; a missing end does not.
    jpeg_finish_decompress(&decoder.info);
    return Outcome::done;
}

Rgb read_pixels(const Source &source, std::string_view file, const JpegHeader &header) {
    check_size(source, header.width, header.height);
    Rgb picture{header.width, header.height, std::vector<uint8_t>(size_t{3} * header.width * header.height)};
    std::vector<uint8_t> line(size_t{4} * header.width);
    const Target target{picture.bytes.data(), line.data(), header.width, header.height, header.channels};
    Decoder decoder;
    switch (decode(decoder, file, target)) {
    case Outcome::done: return picture;
    case Outcome::cut_off: throw Damage{"rows are missing"};
    case Outcome::failed: break;
    }
    if (decoder.errors.msg_code == JERR_OUT_OF_MEMORY) throw std::bad_alloc();
    throw Damage{decoder.message};
}

} // namespace

StoredPicture read_jpeg(const Source &source) {
    const JpegParts parts = split_jpeg(source.data);
    try {
        JpegHeader header = read_jpeg_header(parts.pixels);
        Rgb picture = read_pixels(source, parts.pixels, header);
        return {std::move(picture), parts.exif.empty() ? std::move(header.exif) : std::string(parts.exif)};
    } catch (const Damage &damage) {
        refuse_damaged(source, parts.complete, find_jpeg_size(parts.pixels), damage.reason);
    }
}

} // namespace janus
