#include "picture_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "../src/error.h"
#include "exif.h"
#include "picture_format.h"
#include "stored_picture.h"

namespace janus {
namespace {

constexpr size_t BLOCK_BYTES = 1 << 20;

[[noreturn]] void refuse_to_open(const std::string &path, int error) {
    throw Error(JANUS_IMAGE, path + " cannot be opened: " + std::generic_category().message(error));
}

// Pipes and devices are refused, not waited for.
void require_file(const std::string &path) {
    struct stat status;
    if (stat(path.c_str(), &status) == 0) {
        if (!S_ISREG(status.st_mode)) throw Error(JANUS_IMAGE, path + " cannot be used as an image: not a file");
    } else if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) {
        throw Error(JANUS_IMAGE, "no image at " + path);
    } else {
        refuse_to_open(path, errno);
    }
}

class File {
public:
    explicit File(const std::string &path) : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
        if (descriptor_ < 0) refuse_to_open(path, errno);
    }
    ~File() { close(descriptor_); }
    File(const File &) = delete;
    File &operator=(const File &) = delete;

    // Appends up to `size` bytes, fewer only at the file's end. Returns whether there were any.
    bool append(std::string &data, size_t size) {
        const size_t start = data.size();
        data.resize(start + size);
        size_t filled = 0;
        while (filled < size) {
            const ssize_t got = read(descriptor_, data.data() + start + filled, size - filled);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) refuse_to_open(path_, errno);
            if (got == 0) break;
            filled += static_cast<size_t>(got);
        }
        data.resize(start + filled);
        return filled > 0;
    }

private:
    const std::string &path_;
    int descriptor_;
};

Rgb decode(const PictureFormat &format, std::string_view data, const std::string &name, bool keep_orientation) {
    StoredPicture stored = format.read({data, name, format.name});
    return turn_upright(std::move(stored.rgb), keep_orientation ? 1 : read_orientation(stored.exif));
}

} // namespace

Rgb read_picture(const std::string &path, bool keep_orientation) {
    require_file(path);
    std::string data;
    File file(path);
    file.append(data, HEAD_BYTES);
    const PictureFormat format = recognise(data, path);
    while (file.append(data, BLOCK_BYTES)) {
    }
    return decode(format, data, path, keep_orientation);
}

Rgb decode_picture(std::string_view data, const std::string &name, bool keep_orientation) {
    return decode(recognise(data.substr(0, HEAD_BYTES), name), data, name, keep_orientation);
}

} // namespace janus
