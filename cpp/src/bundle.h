// A bundle on disk: opened and checked by size. The counterpart of janus_runtime/bundle/bundle.py.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "manifest.h"

namespace janus {

class Bundle {
public:
    // Reads the manifest and checks that every file is there and whole by size. Throws Error (JANUS_BUNDLE).
    explicit Bundle(const std::string &path);

    // The graph called `name`; throws Error (JANUS_BUNDLE) saying which there are.
    const Graph &graph(const std::string &name) const;
    std::string read(const std::string &file) const;
    // To call after these files were opened: throws Error (JANUS_BUNDLE) if they, or the manifest, are no longer those of the constructor.
    // Graphs are opened when first used, and by then another export may have taken the folder's place.
    void check_unchanged(const std::vector<std::string> &files) const;

    const std::filesystem::path &path() const { return path_; }
    const Manifest &manifest() const { return manifest_; }

private:
    // Device, inode, size and time of change.
    using Stamp = std::array<int64_t, 4>;
    static bool take_stamp(const std::filesystem::path &path, Stamp &stamp);
    void check_file(const std::string &name, uint64_t bytes);

    std::filesystem::path path_;
    std::map<std::string, Stamp> stamps_;
    Manifest manifest_;
};

} // namespace janus
