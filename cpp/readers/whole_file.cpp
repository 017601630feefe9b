#include "whole_file.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <system_error>
#include <utility>

#include "../src/error.h"

namespace janus {
namespace {

[[noreturn]] void refuse(const std::string &path, int error) {
    if (error == EEXIST) throw Error(JANUS_ERROR, path + " exists already; choose another name, or remove it first");
    throw Error(JANUS_ERROR, path + " cannot be written: " + std::generic_category().message(error));
}

// The folder with its slash, and "." and the name: what begins with a dot is hidden.
std::string hidden_beside(const std::string &path) {
    const size_t name = path.rfind('/') + 1;
    return path.substr(0, name) + "." + path.substr(name);
}

// Random: writers in containers that share a folder may have equal process ids.
std::string part_name(const std::string &path) {
    uint64_t number = 0;
    if (getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number)) refuse(path, errno);
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(number));
    return hidden_beside(path) + "." + digits + ".part";
}

// A file that did not exist, which is removed again under this name. -1 for `descriptor`, and errno, if it cannot be made.
struct TemporaryFile {
    std::string path;
    int descriptor;

    // Its mode follows the umask.
    explicit TemporaryFile(std::string name)
        : path(std::move(name)), descriptor(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {}
    ~TemporaryFile() {
        if (descriptor < 0) return;
        close(descriptor);
        unlink(path.c_str());
    }
    TemporaryFile(const TemporaryFile &) = delete;
    TemporaryFile &operator=(const TemporaryFile &) = delete;
};

// Returns 0 or an error's number.
int write_all(int descriptor, std::string_view content) {
    while (!content.empty()) {
        const ssize_t written = write(descriptor, content.data(), content.size());
        if (written < 0 && errno != EINTR) return errno;
        if (written > 0) content.remove_prefix(static_cast<size_t>(written));
    }
    // A name must not outlive a crash that its contents do not.
    return fsync(descriptor) == 0 ? 0 : errno;
}

// A file system without hard links renames over what is there. So a writer first claims the name, with a file that is not it.
int claim(const std::string &part, const std::string &path) {
    const TemporaryFile claimed(hidden_beside(path) + ".claim");
    if (claimed.descriptor < 0) return errno;
    struct stat status;
    if (lstat(path.c_str(), &status) == 0) return EEXIST;
    return rename(part.c_str(), path.c_str()) == 0 ? 0 : errno;
}

int give_name(const std::string &part, const std::string &path) {
    if (link(part.c_str(), path.c_str()) == 0) return 0;
    return errno == EEXIST ? EEXIST : claim(part, path);
}

} // namespace

void write_new_file(const std::string &path, std::string_view content) {
    const TemporaryFile part(part_name(path));
    if (part.descriptor < 0) refuse(path, errno);
    int error = write_all(part.descriptor, content);
    if (error == 0) error = give_name(part.path, path);
    if (error != 0) refuse(path, error);
}

} // namespace janus
