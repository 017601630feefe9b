#include "picture_format.h"

#include <algorithm>
#include <initializer_list>

#include "../src/error.h"
#include "byte_order.h"

namespace janus {
namespace {

using namespace std::string_view_literals;

constexpr auto BYTE_ORDER_MARK = "\xEF\xBB\xBF"sv;

using Test = bool (*)(std::string_view head);

struct Kind {
    Test begins;
    const char *name;
};

bool one_of(std::string_view text, std::initializer_list<std::string_view> words) {
    return std::find(words.begin(), words.end(), text) != words.end();
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool is_word(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; }

void skip_spaces(std::string_view &text) {
    while (!text.empty() && is_space(text[0])) text.remove_prefix(1);
}

void skip_to(std::string_view &text, std::string_view mark) { text.remove_prefix(std::min(text.find(mark), text.size())); }

// Whether it begins with `word`, in lower case here and in any there.
bool starts_with_word(std::string_view text, std::string_view word) {
    const auto same = [](char lower, char c) { return c == lower || (c >= 'A' && c <= 'Z' && c - 'A' + 'a' == lower); };
    return text.size() >= word.size() && std::equal(word.begin(), word.end(), text.begin(), same);
}

// The brands of an ISO media file, four bytes each, the major one first and then a version; "" if it is none.
std::string_view brands(std::string_view head) { return slice(head, 4, 8) == "ftyp" ? slice(head, 8, head.size()) : ""sv; }

bool is_png(std::string_view head) { return starts_with(head, "\x89PNG"); }
bool is_jpeg(std::string_view head) { return starts_with(head, "\xFF\xD8\xFF"); }
bool is_webp(std::string_view head) { return starts_with(head, "RIFF") && slice(head, 8, 12) == "WEBP"; }
bool is_gif(std::string_view head) { return starts_with(head, "GIF87a") || starts_with(head, "GIF89a"); }
bool is_bmp(std::string_view head) { return starts_with(head, "BM"); }
bool is_tiff(std::string_view head) {
    return one_of(head.substr(0, 4), {"II*\0"sv, "II\0*"sv, "II+\0"sv, "MM\0*"sv, "MM*\0"sv, "MM\0+"sv});
}
bool is_ppm(std::string_view head) {
    if (starts_with(head, "P0CMYK")) return head.size() > 6 && is_space(head[6]);
    return head.size() > 2 && head[0] == 'P' && "123456f"sv.find(head[1]) != ""sv.npos && is_space(head[2]);
}
bool is_avif(std::string_view head) {
    const std::string_view all = brands(head);
    for (size_t at = 0; at <= 12 * 4; at += 4) {
        if (one_of(slice(all, at, at + 4), {"avif", "avis"})) return true;
    }
    return false;
}
bool is_jpeg2000(std::string_view head) { return starts_with(head, "\0\0\0\x0CjP  "sv) || starts_with(head, "\xFFO\xFFQ"); }
bool is_ico(std::string_view head) { return starts_with(head, "\0\0\1\0"sv); }

bool is_jpeg_xl(std::string_view head) { return starts_with(head, "\xFF\n") || starts_with(head, "\0\0\0\x0CJXL "sv); }
bool is_heic(std::string_view head) {
    const std::string_view major = brands(head).substr(0, 4);
    return one_of(major, {"heic", "heif", "heim", "heis", "heix", "hevc", "hevm", "hevs", "hevx", "mif1", "msf1"});
}
bool is_video(std::string_view head) {
    return one_of(slice(head, 4, 8), {"ftyp", "moov", "mdat"}) || starts_with(head, "\x1A\x45\xDF\xA3") ||
           (starts_with(head, "RIFF") && slice(head, 8, 12) == "AVI ") || starts_with(head, "\0\0\1\xBA"sv);
}
bool is_pdf(std::string_view head) { return starts_with(head, "%PDF"); }
bool is_postscript(std::string_view head) { return starts_with(head, "%!PS") || starts_with(head, "\xC5\xD0\xD3\xC6"); }
bool is_photoshop(std::string_view head) { return starts_with(head, "8BPS"); }
bool is_svg(std::string_view head) {
    if (starts_with(head, BYTE_ORDER_MARK)) head.remove_prefix(BYTE_ORDER_MARK.size());
    skip_spaces(head);
    // Declarations and comments; what they hold ends where the next tag begins.
    while (starts_with(head, "<?") || starts_with(head, "<!")) {
        head.remove_prefix(2);
        skip_to(head, "<");
    }
    return starts_with(head, "<svg") && (head.size() == 4 || !is_word(head[4]));
}
bool is_web_page(std::string_view head) {
    if (starts_with(head, BYTE_ORDER_MARK)) head.remove_prefix(BYTE_ORDER_MARK.size());
    skip_spaces(head);
    while (starts_with(head, "<!--")) {
        head.remove_prefix(4);
        skip_to(head, "-->");
        head.remove_prefix(std::min<size_t>(3, head.size()));
        skip_spaces(head);
    }
    return starts_with_word(head, "<html") || starts_with_word(head, "<!doctype html");
}
bool is_lfs_pointer(std::string_view head) { return starts_with(head, "version https://git-lfs"); }

struct ReadKind {
    Test begins;
    PictureFormat format;
};

const ReadKind READ[] = {{is_png, {"PNG", read_png}}, {is_jpeg, {"JPEG", read_jpeg}}, {is_webp, {"WEBP", read_webp}}};

// What Python's runtime reads and this library does not.
const Kind UNREAD[] = {{is_gif, "GIF"},   {is_bmp, "BMP"},           {is_tiff, "TIFF"}, {is_ppm, "PPM"},
                       {is_avif, "AVIF"}, {is_jpeg2000, "JPEG2000"}, {is_ico, "ICO"}};

// What people take for pictures: what it is, and what to do.
const Kind OTHERS[] = {
    {is_jpeg_xl, "a JPEG XL picture, which this library does not read; save it as PNG or JPEG"},
    {is_heic, "a HEIC photo, which this library does not read; save it as PNG or JPEG"},
    {is_video, "a video; save one of its frames as PNG or JPEG"},
    {is_pdf, "a PDF document; save the page as PNG or JPEG"},
    {is_postscript, "a PostScript page; save it as PNG or JPEG"},
    {is_photoshop, "a Photoshop document; save it as PNG or JPEG"},
    {is_svg, "an SVG drawing; save it as PNG or JPEG"},
    {is_web_page, "a web page, not a picture; fetch the picture by its own address"},
    {is_lfs_pointer, "a Git LFS pointer, not the picture; run 'git lfs pull' in its repository"},
};

} // namespace

PictureFormat recognise(std::string_view head, const std::string &name) {
    for (const ReadKind &kind : READ) {
        if (kind.begins(head)) return kind.format;
    }
    if (head.empty()) throw Error(JANUS_IMAGE, name + " is empty: 0 bytes");
    for (const Kind &kind : UNREAD) {
        if (!kind.begins(head)) continue;
        throw Error(JANUS_IMAGE, name + " is " + kind.name + ", which this library does not read; save the picture as PNG, JPEG or WebP");
    }
    for (const Kind &kind : OTHERS) {
        if (kind.begins(head)) throw Error(JANUS_IMAGE, name + " is " + kind.name);
    }
    throw Error(JANUS_IMAGE, name + " cannot be used as an image: it is none of PNG, JPEG, WEBP");
}

} // namespace janus
