#include "picture_folder.h"

#include <unistd.h>
#include <wctype.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "error.h"
#include "picture_file.h"
#include "utf8.h"

namespace cli {
namespace fs = std::filesystem;
namespace {

int next_number(const fs::path &folder) {
    int last = -1;
    for (const auto &entry : fs::directory_iterator(folder)) {
        const std::string name = entry.path().filename().string();
        const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
        if (digits >= 3 && digits <= 9 && name[digits] == '-') last = std::max(last, std::stoi(name.substr(0, digits)));
    }
    return last + 1;
}

std::string three_digits(int number) {
    const std::string text = std::to_string(number);
    return std::string(text.size() < 3 ? 3 - text.size() : 0, '0') + text;
}

} // namespace

PictureFolder::PictureFolder(const std::string &folder) : folder_(folder) {
    std::error_code error;
    fs::create_directories(folder_, error);
    if (error || access(folder_.c_str(), W_OK) != 0) {
        throw janus::Error(JANUS_ERROR, "cannot write to " + folder + ": " + (error ? error.message() : std::strerror(errno)) +
                                            "; choose another --out");
    }
}

std::string PictureFolder::write(const janus::Rgb &picture, const std::string &name, const Texts &texts) {
    for (int number = next_number(folder_);; ++number) {
        const fs::path path = folder_ / (three_digits(number) + "-" + name + ".png");
        try {
            janus::write_png(picture, path.string(), texts);
            return path.string();
        } catch (const janus::Error &) {
            if (!fs::exists(path)) throw; // else another program shares the folder and was faster
        }
    }
}

std::string make_slug(const std::string &text, size_t length) {
    const std::unique_ptr<std::remove_pointer_t<locale_t>, void (*)(locale_t)> locale(newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr),
                                                                                      freelocale);
    std::string slug;
    const std::string whole = janus::replace_invalid(text);
    for (std::string_view rest = whole; !rest.empty();) {
        const janus::Character character = janus::first_character(rest);
        if (!iswalnum_l(character.code, locale.get())) {
            if (!slug.empty() && slug.back() != '-') slug += '-';
        } else if (character.code < 0x80) {
            slug += static_cast<char>(towlower_l(character.code, locale.get()));
        } else {
            slug += rest.substr(0, character.size);
        }
        rest.remove_prefix(character.size);
    }
    slug.resize(janus::cut(slug, length).size());
    while (!slug.empty() && slug.back() == '-') slug.pop_back();
    return slug.empty() ? "picture" : slug;
}

janus::Rgb make_grid(const std::vector<janus::Rgb> &pictures) {
    const auto columns = static_cast<uint32_t>(std::ceil(std::sqrt(static_cast<double>(pictures.size()))));
    const uint32_t rows = (static_cast<uint32_t>(pictures.size()) + columns - 1) / columns;
    const uint32_t width = pictures[0].width, height = pictures[0].height;
    janus::Rgb sheet{columns * (width + 2) - 2, rows * (height + 2) - 2, {}};
    sheet.bytes.resize(size_t{3} * sheet.width * sheet.height);
    for (uint32_t i = 0; i < pictures.size(); ++i) {
        const size_t left = i % columns * (width + 2), top = i / columns * (height + 2);
        for (uint32_t y = 0; y < height; ++y) {
            std::memcpy(sheet.bytes.data() + 3 * ((top + y) * sheet.width + left), pictures[i].bytes.data() + size_t{3} * width * y,
                        size_t{3} * width);
        }
    }
    return sheet;
}

} // namespace cli
