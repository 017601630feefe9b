// JSON read strictly: nothing missing, nothing unknown, no other type. The counterpart of janus_runtime/bundle/strict_json.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "python_repr.h"

namespace janus {

constexpr int64_t INT_LIMIT = int64_t{1} << 31;

// One object of a file, whose fields are taken one by one. Every function throws Error (JANUS_BUNDLE) that names the place.
class JsonObject {
public:
    // `fields` are all that it must have, and no others.
    JsonObject(const Json &value, std::string where, const std::vector<std::string> &fields);

    const Json &at(const char *field) const;
    std::string place(const char *field) const;
    bool is_null(const char *field) const;
    int whole(const char *field) const;      // 0 to 2^31 - 1
    uint64_t bytes(const char *field) const; // 0 to 2^63 - 1
    double number(const char *field) const;  // finite
    bool boolean(const char *field) const;
    std::string text(const char *field) const;
    std::string one_of(const char *field, const std::vector<std::string> &allowed) const;
    std::vector<std::string> texts(const char *field) const;

private:
    const Json &value_;
    std::string where_;
};

[[noreturn]] void refuse_json(const std::string &where, const std::string &expected, const Json &got);
int whole_number(const Json &value, const std::string &where);
double finite_number(const Json &value, const std::string &where);

} // namespace janus
