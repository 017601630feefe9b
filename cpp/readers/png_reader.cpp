// PNG as Pillow reads it, over zlib alone: libpng refuses files with wrong checksums or missing rows that Pillow reads, and reads some that
// Pillow refuses.
// Makes zlib's input const.
#define ZLIB_CONST
#include <zlib.h>

#include <algorithm>
#include <new>

#include "byte_order.h"
#include "png_chunks.h"
#include "png_rows.h"
#include "stored_picture.h"

namespace janus {
namespace {

using namespace std::string_view_literals;

constexpr auto SIGNATURE = "\x89PNG\r\n\x1a\n"sv;
constexpr size_t HEADER_BYTES = 13, MAX_COLOURS = 256;
// Compressed data goes to zlib in the pieces that Pillow hands over: zlib may meet a fault ahead of the rows it has given.
constexpr size_t PIECE_BYTES = 65536;

// What can be known without reading pixels.
struct Outline {
    bool complete = false;
    std::optional<StatedSize> size;
    std::string_view exif;
};

Outline outline(std::string_view file) {
    Outline result;
    PngChunks chunks(file);
    bool first = true;
    while (const auto chunk = chunks.next()) {
        result.complete = chunk->name == "IEND";
        if (chunk->name == "eXIf" && result.exif.empty()) result.exif = chunk->data;
        if (first && chunk->is_critical()) {
            first = false;
            const size_t there = chunk->data.size() + chunk->checksum.size();
            if (chunk->data.size() >= 8 && there >= 10) result.size = {read_big(chunk->data, 0, 4), read_big(chunk->data, 4, 4)};
        }
    }
    return result;
}

bool is_name(std::string_view name) {
    return std::all_of(name.begin(), name.end(),
                       [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; });
}

void require_whole(const PngChunk &chunk) {
    if (!chunk.is_whole()) throw Damage{std::string(chunk.name) + " is cut off"};
}

void take_header(PngHeader &header, const PngChunk &chunk) {
    if (chunk.data.size() < HEADER_BYTES) throw Damage{"IHDR is too short"};
    if (chunk.data[11] != 0) throw Damage{"unknown filter method"};
    header.width = read_big(chunk.data, 0, 4);
    header.height = read_big(chunk.data, 4, 4);
    PngHeader stated = header;
    stated.depth = static_cast<uint8_t>(chunk.data[8]);
    stated.colour = static_cast<uint8_t>(chunk.data[9]);
    if (stated.has_known_colours()) header = stated;
    header.interlaced = header.interlaced || chunk.data[12] != 0;
}

// Reads up to the first chunk of pixels, and returns it, or nothing if the file ends without.
std::optional<PngChunk> read_header(PngChunks &chunks, PngHeader &header) {
    while (const auto chunk = chunks.next_critical()) {
        if (!is_name(chunk->name)) throw Damage{"a chunk's name is damaged"};
        if (chunk->name == "IEND") return std::nullopt;
        if (chunk->name == "IDAT" && header.has_known_colours()) return chunk;
        require_whole(*chunk);
        if (chunk->name == "IHDR") take_header(header, *chunk);
        // Pillow drops a palette that comes before the header.
        if (chunk->name == "PLTE" && header.colour == 3) header.palette = chunk->data;
        if (!chunk->has_right_checksum()) throw Damage{"wrong checksum of " + std::string(chunk->name)};
    }
    throw Damage{"its header is not complete"};
}

// The compressed data, piece by piece.
class PixelData {
public:
    PixelData(PngChunks &chunks, const PngChunk &first) : chunks_(chunks), rest_(first.data), unread_(first.stated_size) {}
    // Throws Damage if there is no more.
    std::string_view next() {
        while (unread_ == 0) {
            const auto chunk = chunks_.next_critical();
            if (!chunk || (chunk->name != "IDAT" && chunk->name != "DDAT")) throw Damage{"rows are missing"};
            rest_ = chunk->data;
            unread_ = chunk->stated_size;
        }
        const std::string_view piece = rest_.substr(0, PIECE_BYTES);
        if (piece.empty()) throw Damage{"rows are missing"};
        rest_.remove_prefix(piece.size());
        unread_ -= std::min<uint32_t>(unread_, PIECE_BYTES);
        return piece;
    }

private:
    PngChunks &chunks_;
    std::string_view rest_;
    // Of the chunk as stated, which a file that is cut off does not have.
    uint32_t unread_;
};

class Inflater {
public:
    Inflater() {
        if (inflateInit(&stream_) != Z_OK) throw std::bad_alloc();
    }
    ~Inflater() { inflateEnd(&stream_); }
    Inflater(const Inflater &) = delete;
    Inflater &operator=(const Inflater &) = delete;

    void feed(std::string_view data) {
        stream_.next_in = reinterpret_cast<const Bytef *>(data.data());
        stream_.avail_in = static_cast<uInt>(data.size());
    }
    bool has_input() const { return stream_.avail_in > 0; }
    bool at_end() const { return status_ == Z_STREAM_END; }
    // Returns how much it wrote.
    size_t fill(uint8_t *out, size_t size) {
        stream_.next_out = out;
        stream_.avail_out = static_cast<uInt>(size);
        status_ = inflate(&stream_, Z_NO_FLUSH);
        if (status_ == Z_MEM_ERROR) throw std::bad_alloc();
        if (status_ < 0) throw Damage{"broken data stream"};
        return size - stream_.avail_out;
    }

private:
    z_stream stream_{};
    int status_ = Z_OK;
};

// As Pillow does, takes data that ends with a row for all of the picture, whose other rows stay empty.
void read_rows(PixelData &data, PngRows &rows) {
    Inflater inflater;
    size_t filled = 0;
    while (true) {
        inflater.feed(data.next());
        while (inflater.has_input()) {
            filled += inflater.fill(rows.buffer() + filled, rows.buffer_size() - filled);
            if (filled < rows.buffer_size()) break;
            rows.take_row();
            if (rows.finished() || inflater.at_end()) return;
            filled = 0;
        }
    }
}

// Pillow refuses a picture, whose pixels it has, for some of what follows.
void check_rest(PngChunks &chunks) {
    while (const auto chunk = chunks.next_critical()) {
        if (!is_name(chunk->name) || chunk->name == "IEND") return;
        require_whole(*chunk);
        PngHeader ignored;
        if (chunk->name == "IHDR") take_header(ignored, *chunk);
    }
}

Rgb read_pixels(const Source &source) {
    if (!starts_with(source.data, SIGNATURE)) throw Damage{};
    PngChunks chunks(source.data);
    PngHeader header;
    const std::optional<PngChunk> first = read_header(chunks, header);
    if (header.width == 0 || header.height == 0 || !header.has_known_colours()) throw Damage{"its header says nothing that we know"};
    check_size(source, header.width, header.height);
    if (!first) throw Damage{"there are no pixels"};
    if (header.palette.size() / 3 > MAX_COLOURS) throw Damage{"its palette is too long"};
    PngRows rows(header);
    PixelData data(chunks, *first);
    read_rows(data, rows);
    check_rest(chunks);
    return std::move(rows).picture();
}

} // namespace

StoredPicture read_png(const Source &source) {
    const Outline known = outline(source.data);
    try {
        return {read_pixels(source), std::string(known.exif)};
    } catch (const Damage &damage) {
        refuse_damaged(source, known.complete, known.size, damage.reason);
    }
}

} // namespace janus
