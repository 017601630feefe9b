// What the readers of a tokenizer.json's parts share. Tokenizer's constructor, which knows the file's path, makes an Error of either
// struct.
#pragma once

#include <string>

#include "json.h"

namespace janus {

struct Malformed {
    std::string reason;
};

// `part` goes into "uses ..., which this library does not support".
struct Unsupported {
    std::string part;
};

// Throws Malformed where `object` has no such list.
inline const Json::array_t &list_at(const Json &object, const char *name) {
    const Json &value = object.at(name);
    if (!value.is_array()) throw Malformed{std::string(name) + " is no list"};
    return value.array();
}

} // namespace janus
