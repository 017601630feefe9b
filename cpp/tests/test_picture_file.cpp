#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <webp/encode.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "error.h"
#include "picture_file.h"
#include "picture_samples.h"
#include "png_bytes.h"

namespace {

using namespace std::string_literals;
using janus::Rgb;
using samples::bytes_of;
using samples::hash;

Rgb decode(const std::string &data, bool keep_orientation = false) { return janus::decode_picture(data, "it", keep_orientation); }

// The message, and `status` as it was expected.
template <typename Call> std::string refusal(Call call, janus_status status = JANUS_IMAGE) {
    try {
        call();
    } catch (const janus::Error &error) {
        CHECK(error.status == status);
        return error.message;
    }
    return "";
}

std::string refusal(const std::string &data) {
    return refusal([&] { decode(data); });
}

std::string webp(const Rgb &picture) {
    uint8_t *encoded = nullptr;
    const int width = static_cast<int>(picture.width), height = static_cast<int>(picture.height);
    const size_t size = WebPEncodeLosslessRGB(picture.bytes.data(), width, height, 3 * width, &encoded);
    const std::unique_ptr<uint8_t, void (*)(void *)> owner(encoded, WebPFree);
    return {reinterpret_cast<char *>(encoded), size};
}

std::string little(uint32_t value) {
    const std::string big = samples::big(value);
    return {big.rbegin(), big.rend()};
}

// A WebP that is packed once more, with a header that announces metadata and `chunks` behind the pixels.
std::string extended(const std::string &simple, const Rgb &picture, const std::string &chunks) {
    const std::string size = little(picture.width - 1).substr(0, 3) + little(picture.height - 1).substr(0, 3);
    const std::string body = "WEBPVP8X" + little(10) + little(0x2C) + size + simple.substr(12) + chunks;
    return "RIFF" + little(static_cast<uint32_t>(body.size())) + body;
}

std::string exif_of(int orientation) {
    return "II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0"s + static_cast<char>(orientation) + std::string(7, '\0');
}

std::string segment(char marker, const std::string &data) {
    return "\xFF"s + marker + samples::big(static_cast<uint32_t>(data.size() + 2)).substr(2) + data;
}

Rgb turned(const Rgb &stored, int orientation) {
    Rgb seen = stored;
    if (orientation >= 5) std::swap(seen.width, seen.height);
    for (uint32_t y = 0; y < stored.height; ++y) {
        for (uint32_t x = 0; x < stored.width; ++x) {
            const uint32_t right = stored.width - 1 - x, down = stored.height - 1 - y;
            const uint32_t places[][2] = {{x, y}, {right, y}, {right, down}, {x, down}, {y, x}, {down, x}, {down, right}, {y, right}};
            const auto &[to_x, to_y] = places[orientation - 1];
            std::copy_n(&stored.bytes[3 * (y * stored.width + x)], 3, &seen.bytes[3 * (to_y * seen.width + to_x)]);
        }
    }
    return seen;
}

// A folder that goes with the test.
struct Folder {
    std::string path = (std::filesystem::temp_directory_path() / "janus-XXXXXX").string();

    Folder() { REQUIRE(mkdtemp(path.data()) != nullptr); }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string operator/(const std::string &name) const { return path + "/" + name; }
    long count() const { return std::distance(std::filesystem::directory_iterator(path), std::filesystem::directory_iterator()); }
};

} // namespace

TEST_CASE("JPEGs of every kind of channels have Pillow's pixels") {
    const std::string grey = bytes_of(samples::GREY_JPEG), colour = bytes_of(samples::COLOUR_JPEG), cmyk = bytes_of(samples::CMYK_JPEG);
    CHECK(hash(decode(grey)) == 0x4c828d7b0fa19b24u);
    CHECK(hash(decode(bytes_of(samples::PROGRESSIVE_JPEG))) == 0x4c828d7b0fa19b24u);
    CHECK(hash(decode(colour)) == 0x148e7eda97109402u);
    // Adobe's segment in place of JFIF's says whether the channels are RGB, or CMYK.
    const auto adobe = [&](char transform) {
        return colour.substr(0, 2) + segment('\xEE', "Adobe\0\x64\0\0\0\0"s + transform) + colour.substr(20);
    };
    CHECK(hash(decode(adobe(0))) == 0x63d7055b103c44efu);
    CHECK(hash(decode(adobe(1))) == 0x148e7eda97109402u);
    CHECK(hash(decode(cmyk)) == 0x4da3a6483b61498bu);
    std::string ycck = cmyk, silent = cmyk;
    ycck[cmyk.find("Adobe") + 11] = 2;
    silent[cmyk.find("Adobe")] = 'a';
    CHECK(hash(decode(ycck)) == 0x59ccae730f1fa601u);
    CHECK(hash(decode(silent)) == 0x4da3a6483b61498bu);
}

TEST_CASE("WebPs have Pillow's pixels") {
    CHECK(hash(decode(bytes_of(samples::ALPHA_WEBP))) == 0xe614b652c3e084d0u);
    CHECK(hash(decode(bytes_of(samples::ANIMATED_WEBP))) == 0x252c52d7bd453aedu);
    const Rgb picture = samples::noise(9, 7);
    CHECK(decode(webp(picture)).bytes == picture.bytes);
}

TEST_CASE("EXIF turns pictures of every format upright, unless told otherwise") {
    const Rgb picture = samples::noise(5, 3), jpeg = decode(bytes_of(samples::COLOUR_JPEG));
    const std::string plain_jpeg = bytes_of(samples::COLOUR_JPEG), plain_webp = webp(picture);
    std::string rows;
    for (size_t i = 0; i < picture.bytes.size(); ++i) rows += (i % 15 == 0 ? "\0"s : ""s) + static_cast<char>(picture.bytes[i]);
    for (int orientation = 1; orientation <= 8; ++orientation) {
        CAPTURE(orientation);
        const std::string exif = exif_of(orientation), block = samples::chunk("eXIf", exif);
        const std::string webp_exif = "EXIF" + little(static_cast<uint32_t>(exif.size())) + exif + "XMP " + little(2) + "<>";
        struct {
            std::string file;
            Rgb stored;
        } const cases[] = {
            {samples::png({5, 3}, rows, block), picture},
            {samples::png({5, 3}, rows, "", block), picture},
            {extended(plain_webp, picture, webp_exif), picture},
            {plain_jpeg.substr(0, 2) + segment('\xE1', "Exif\0\0"s + exif) + plain_jpeg.substr(2), jpeg},
        };
        for (const auto &[file, stored] : cases) {
            const Rgb seen = turned(stored, orientation), got = decode(file);
            CHECK(got.width == seen.width);
            CHECK(got.bytes == seen.bytes);
            CHECK(decode(file, true).bytes == stored.bytes);
        }
    }
    for (const std::string &odd : {"II*\0\xFF\xFF\xFF\xFF"s, exif_of(9), exif_of(0), "no TIFF"s, exif_of(3).substr(0, 21)}) {
        CHECK(decode(samples::png({5, 3}, rows, samples::chunk("eXIf", odd))).bytes == picture.bytes);
    }
}

TEST_CASE("the start of a file is refused as cut off") {
    const std::string baseline = bytes_of(samples::COLOUR_JPEG), progressive = bytes_of(samples::PROGRESSIVE_JPEG);
    for (const std::string &file : {baseline, progressive, webp(samples::noise(9, 7)), bytes_of(samples::ALPHA_WEBP)}) {
        const std::string format = file[0] == 'R' ? "WEBP" : "JPEG";
        // The end marker of a JPEG may be missing, and the entropy coder pads the last row's byte.
        for (size_t size = 12; size + 4 < file.size(); ++size) {
            CAPTURE(size);
            const std::string where = " that is cut off after " + std::to_string(size) + " bytes; copy or download it again";
            CHECK(refusal(file.substr(0, size)) == "it is a " + format + where);
        }
    }
}

TEST_CASE("whichever byte of a file is damaged, it is read or refused in one line") {
    for (std::string_view hex : {samples::COLOUR_JPEG, samples::CMYK_JPEG, samples::ALPHA_WEBP, samples::ANIMATED_WEBP}) {
        std::string file = bytes_of(hex);
        for (char &byte : file) {
            for (char damage : {'\x01', '\x80', '\xFF'}) {
                byte ^= damage;
                const std::string message = refusal(file);
                CHECK((message.empty() || message.rfind("it ", 0) == 0));
                CHECK(message.find('\n') == std::string::npos);
                byte ^= damage;
            }
        }
    }
}

TEST_CASE("a size in the header that is refused before memory is allocated") {
    std::string jpeg = bytes_of(samples::GREY_JPEG);
    const size_t height = jpeg.find("\xFF\xC0") + 5;
    jpeg.replace(height, 4, "\xFF\xFF\xFF\xFF");
    CHECK(refusal(jpeg) == "it has 65535x65535 pixels, more than 80,000,000; scale it down first");
    jpeg.replace(height, 4, "\0\x0A\0\0"s);
    CHECK(refusal(jpeg) == "it is empty: a JPEG of 0x10 pixels");
}

TEST_CASE("what is no picture, or one that this library does not read, is called by its name") {
    const std::string lacks = ", which this library does not read; save ";
    const std::pair<std::string, std::string> cases[] = {
        {"", "is empty: 0 bytes"},
        {"GIF89a", "is GIF" + lacks + "the picture as PNG, JPEG or WebP"},
        {"BM", "is BMP" + lacks + "the picture as PNG, JPEG or WebP"},
        {"MM\0*"s, "is TIFF" + lacks + "the picture as PNG, JPEG or WebP"},
        {"P6 1 1", "is PPM" + lacks + "the picture as PNG, JPEG or WebP"},
        {"\0\0\0\x20"
         "ftypmif1\0\0\0\0miafavif"s,
         "is AVIF" + lacks + "the picture as PNG, JPEG or WebP"},
        {"\xFFO\xFFQ", "is JPEG2000" + lacks + "the picture as PNG, JPEG or WebP"},
        {"\0\0\1\0"s, "is ICO" + lacks + "the picture as PNG, JPEG or WebP"},
        {"\xFF\n", "is a JPEG XL picture" + lacks + "it as PNG or JPEG"},
        {"\0\0\0\x18"
         "ftypheic"s,
         "is a HEIC photo" + lacks + "it as PNG or JPEG"},
        {"\0\0\0\x14"
         "ftypqt  "s,
         "is a video; save one of its frames as PNG or JPEG"},
        {"RIFF1234AVI ", "is a video; save one of its frames as PNG or JPEG"},
        {"%PDF-1.7", "is a PDF document; save the page as PNG or JPEG"},
        {"\xEF\xBB\xBF<?xml?>\n<!-- a --><svg/>", "is an SVG drawing; save it as PNG or JPEG"},
        {"<svgs>", "cannot be used as an image: it is none of PNG, JPEG, WEBP"},
        {"<!-- a -->\n<!DocType HTML>", "is a web page, not a picture; fetch the picture by its own address"},
        {"<!-- no end", "cannot be used as an image: it is none of PNG, JPEG, WEBP"},
        {"version https://git-lfs", "is a Git LFS pointer, not the picture; run 'git lfs pull' in its repository"},
        {"\x89PNG", "is a PNG that is cut off after 4 bytes; copy or download it again"},
    };
    for (const auto &[data, expected] : cases) CHECK(refusal(data) == "it " + expected);
}

TEST_CASE("names that no picture has") {
    const Folder folder;
    REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);
    const auto read = [](const std::string &path) { return refusal([&] { janus::read_picture(path, false); }); };
    CHECK(read(folder / "absent") == "no image at " + (folder / "absent"));
    CHECK(read(folder / "pipe/below") == "no image at " + (folder / "pipe/below"));
    CHECK(read(folder / "pipe") == (folder / "pipe") + " cannot be used as an image: not a file");
    CHECK(read(folder.path) == folder.path + " cannot be used as an image: not a file");
    const std::string lengthy = folder / std::string(5000, 'x');
    CHECK(read(lengthy) == lengthy + " cannot be opened: File name too long");
}

TEST_CASE("a PNG that is written holds picture and texts") {
    const Folder folder;
    const std::string path = folder / "picture.png";
    const Rgb picture = samples::noise(70, 40);
    janus::write_png(picture, path, {{"prompt", "Grüße\n日本"}, {"seed", ""}});
    CHECK(janus::read_picture(path, false).bytes == picture.bytes);
    std::ifstream stream(path, std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(stream), {}};
    const size_t start = samples::SIGNATURE.size() + samples::header({70, 40}).size();
    const std::string texts = samples::chunk("iTXt", "prompt\0\0\0\0\0Grüße\n日本"s) + samples::chunk("iTXt", "seed\0\0\0\0\0"s);
    CHECK(content.substr(start, texts.size()) == texts);
    CHECK(folder.count() == 1);
}

TEST_CASE("a PNG that cannot be written takes nobody's place and leaves nothing behind") {
    const Folder folder;
    const std::string taken = folder / "taken.png", absent = folder / "none/a.png", path = folder / "a.png";
    std::ofstream(taken) << "somebody's";
    const Rgb picture = samples::noise(3, 2);
    const auto write = [&](const std::string &to, const std::string &key, const std::string &value, janus_status status) {
        return refusal([&] { janus::write_png(picture, to, {{key, value}}); }, status);
    };
    CHECK(write(taken, "a", "", JANUS_ERROR) == taken + " exists already; choose another name, or remove it first");
    CHECK(write(absent, "a", "", JANUS_ERROR) == absent + " cannot be written: No such file or directory");
    for (const std::string &key : {""s, " a"s, "a "s, "\xC3\xA4"s, std::string(80, 'a')}) {
        CHECK(write(path, key, "", JANUS_VALUE).find("expected 1 to 79 printable ASCII characters") != std::string::npos);
    }
    CHECK(write(path, "a", "\xFF", JANUS_VALUE) == "the PNG's text 'a' is not UTF-8");
    const std::string empty = refusal([&] { janus::write_png({}, path, {}); }, JANUS_VALUE);
    CHECK(empty == "a picture without pixels cannot be written");
    CHECK(folder.count() == 1);
    CHECK(std::filesystem::file_size(taken) == 10);
}
