#include "bundle.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "error.h"
#include "python_repr.h"
#include "utf8.h"

namespace janus {
namespace fs = std::filesystem;
namespace {

const char *const MANIFEST = "manifest.json";

bool is_inside(const fs::path &path, const fs::path &folder) {
    const fs::path relative = path.lexically_relative(folder);
    return !relative.empty() && *relative.begin() != "..";
}

// The folders that files may lie in: the bundle's own and, in a hub's cache, whose files are links, `<repository>/blobs` beside
// `<repository>/snapshots/<commit>`.
std::vector<fs::path> find_homes(const fs::path &folder) {
    std::vector<fs::path> homes{folder};
    for (fs::path parent = folder.parent_path(); parent != parent.parent_path(); parent = parent.parent_path()) {
        if (parent.filename() == "snapshots") homes.push_back(parent.parent_path() / "blobs");
    }
    return homes;
}

std::string read_file(const fs::path &path) {
    std::ifstream stream(path, std::ios::binary);
    std::ostringstream text;
    // An empty file sets failbit where it is read as a whole.
    if (stream && stream.peek() != std::ifstream::traits_type::eof()) text << stream.rdbuf();
    if (!stream.is_open() || stream.bad() || text.fail()) {
        throw Error(JANUS_BUNDLE, path.string() + " cannot be read: " + std::strerror(errno));
    }
    return text.str();
}

fs::path find_folder(const std::string &path) {
    std::error_code error;
    if (fs::is_regular_file(path, error)) throw Error(JANUS_BUNDLE, path + " is a file; give the bundle's folder");
    if (!fs::is_directory(path, error)) {
        throw Error(JANUS_BUNDLE, "no bundle at " + path + "; make one with 'janus-export checkpoint SRC --out " + path + "'");
    }
    const fs::path folder = fs::canonical(path, error);
    if (error) throw Error(JANUS_BUNDLE, path + " cannot be read: " + error.message());
    if (!is_utf8(folder.string())) {
        throw Error(JANUS_ERROR,
                    "the path of the bundle is not valid UTF-8, and ONNX and ONNX Runtime open only paths in UTF-8; rename it");
    }
    return folder;
}

} // namespace

bool Bundle::take_stamp(const fs::path &path, Stamp &stamp) {
    struct stat status{};
    if (stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
    const int64_t changed = static_cast<int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
    stamp = {static_cast<int64_t>(status.st_dev), static_cast<int64_t>(status.st_ino), static_cast<int64_t>(status.st_size), changed};
    return true;
}

Bundle::Bundle(const std::string &path) : path_(find_folder(path)) {
    if (!take_stamp(path_ / MANIFEST, stamps_[MANIFEST])) {
        throw Error(JANUS_BUNDLE,
                    path_.string() + " is not a bundle: it has no manifest.json; make one with 'janus-export checkpoint SRC --out DIR'");
    }
    manifest_ = Manifest::parse(read_file(path_ / MANIFEST), (path_ / MANIFEST).string());
    for (const auto &[name, bytes] : manifest_.files) check_file(name, bytes);
    check_unchanged({});
}

void Bundle::check_file(const std::string &name, uint64_t bytes) {
    const fs::path target = path_ / name;
    std::error_code error;
    const fs::path real = fs::weakly_canonical(target, error);
    bool at_home = false;
    for (const fs::path &home : find_homes(path_)) at_home = at_home || is_inside(real, home);
    if (!at_home) throw Error(JANUS_BUNDLE, target.string() + " is a link out of the bundle; copy the file into the bundle");
    Stamp stamp{};
    if (!take_stamp(target, stamp)) throw Error(JANUS_BUNDLE, target.string() + " is missing; export the bundle again");
    if (access(target.c_str(), R_OK) != 0) throw Error(JANUS_BUNDLE, target.string() + " cannot be read: permission denied");
    if (static_cast<uint64_t>(stamp[2]) != bytes) {
        throw Error(JANUS_BUNDLE, target.string() + " has " + std::to_string(stamp[2]) + " bytes, expected " + std::to_string(bytes) +
                                      ": truncated or altered; export again");
    }
    stamps_[name] = stamp;
}

void Bundle::check_unchanged(const std::vector<std::string> &files) const {
    const auto check = [&](const std::string &name) {
        Stamp stamp{};
        if (!take_stamp(path_ / name, stamp) || stamp != stamps_.at(name)) {
            throw Error(JANUS_BUNDLE, (path_ / name).string() + " was replaced or altered while the bundle was open; load it again");
        }
    };
    check(MANIFEST);
    for (const std::string &name : files) check(name);
}

const Graph &Bundle::graph(const std::string &name) const {
    if (const Graph *graph = manifest_.find_graph(name)) return *graph;
    std::vector<std::string> names;
    for (const Graph &graph : manifest_.graphs) names.push_back(graph.name);
    throw Error(JANUS_BUNDLE, path_.string() + " has no graph '" + name + "': it holds " + join(names) + "; export the bundle again");
}

std::string Bundle::read(const std::string &file) const {
    std::string text = read_file(path_ / file);
    check_unchanged({file});
    return text;
}

} // namespace janus
