#include "json_object.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace janus {

void refuse_json(const std::string &where, const std::string &expected, const Json &got) {
    throw Error(JANUS_BUNDLE, where + ": expected " + expected + ", got " + python_repr(got));
}

int whole_number(const Json &value, const std::string &where) {
    if (!value.is_number_unsigned() || value.unsigned_integer() >= static_cast<uint64_t>(INT_LIMIT)) refuse_json(where, "int", value);
    return static_cast<int>(value.integer());
}

double finite_number(const Json &value, const std::string &where) {
    if (!value.is_number() || !std::isfinite(value.number())) refuse_json(where, "float", value);
    return value.number();
}

JsonObject::JsonObject(const Json &value, std::string where, const std::vector<std::string> &fields)
    : value_(value), where_(std::move(where)) {
    if (!value.is_object()) refuse_json(where_, "an object", value);
    std::vector<std::string> missing, unknown;
    for (const std::string &field : fields) {
        if (!value.contains(field)) missing.push_back(field);
    }
    for (const auto &[key, item] : value.object()) {
        if (std::find(fields.begin(), fields.end(), key) == fields.end()) unknown.push_back(key);
    }
    for (auto *names : {&missing, &unknown}) {
        std::sort(names->begin(), names->end());
        if (!names->empty()) throw Error(JANUS_BUNDLE, where_ + (names == &missing ? ": missing " : ": unknown ") + join(*names));
    }
}

const Json &JsonObject::at(const char *field) const { return value_.at(field); }

std::string JsonObject::place(const char *field) const { return where_ + "." + field; }

bool JsonObject::is_null(const char *field) const { return at(field).is_null(); }

int JsonObject::whole(const char *field) const { return whole_number(at(field), place(field)); }

uint64_t JsonObject::bytes(const char *field) const {
    const Json &value = at(field);
    if (!value.is_number_unsigned() || value.unsigned_integer() >> 63) refuse_json(place(field), "int", value);
    return value.unsigned_integer();
}

double JsonObject::number(const char *field) const { return finite_number(at(field), place(field)); }

bool JsonObject::boolean(const char *field) const {
    if (!at(field).is_boolean()) refuse_json(place(field), "bool", at(field));
    return at(field).boolean();
}

std::string JsonObject::text(const char *field) const {
    if (!at(field).is_string()) refuse_json(place(field), "str", at(field));
    return at(field).text();
}

std::string JsonObject::one_of(const char *field, const std::vector<std::string> &allowed) const {
    const Json &value = at(field);
    if (!value.is_string() || std::find(allowed.begin(), allowed.end(), value.text()) == allowed.end()) {
        refuse_json(place(field), "one of " + join(allowed), value);
    }
    return value.text();
}

std::vector<std::string> JsonObject::texts(const char *field) const {
    const Json &value = at(field);
    if (!value.is_array()) refuse_json(place(field), "tuple", value);
    std::vector<std::string> result;
    for (const Json &item : value.array()) {
        if (!item.is_string()) refuse_json(place(field) + "[" + std::to_string(result.size()) + "]", "str", item);
        result.push_back(item.text());
    }
    return result;
}

} // namespace janus
