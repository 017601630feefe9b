#include "stored_picture.h"

#include "../src/error.h"
#include "picture_file.h"

namespace janus {
namespace {

std::string group_digits(uint64_t number) {
    std::string digits = std::to_string(number);
    for (size_t place = digits.size(); place > 3;) digits.insert(place -= 3, ",");
    return digits;
}

std::string describe(uint32_t width, uint32_t height) { return std::to_string(width) + "x" + std::to_string(height) + " pixels"; }

} // namespace

void check_size(const Source &source, uint32_t width, uint32_t height) {
    if (uint64_t{width} * height <= MAX_PIXELS) return;
    const std::string limit = group_digits(MAX_PIXELS);
    throw Error(JANUS_IMAGE, source.name + " has " + describe(width, height) + ", more than " + limit + "; scale it down first");
}

void refuse_damaged(const Source &source, bool complete, std::optional<StatedSize> size, const std::string &reason) {
    const std::string format = source.format, again = "; copy or download it again";
    if (size && (size->first == 0 || size->second == 0)) {
        throw Error(JANUS_IMAGE, source.name + " is empty: a " + format + " of " + describe(size->first, size->second));
    }
    if (!complete) {
        const std::string length = group_digits(source.data.size());
        throw Error(JANUS_IMAGE, source.name + " is a " + format + " that is cut off after " + length + " bytes" + again);
    }
    const std::string detail = reason.empty() ? "" : " (" + reason + ")";
    throw Error(JANUS_IMAGE, source.name + " cannot be read as an image: its " + format + " data is damaged" + detail + again);
}

} // namespace janus
