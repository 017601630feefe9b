// Values of a JSON text. nlohmann-json reads the text; its own values cannot be destroyed where no memory is left, since their destructor
// allocates and ends the process, and its ordered objects copy all they hold when they grow.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace janus {

class Json {
public:
    using array_t = std::vector<Json>;
    using object_t =
        std::vector<std::pair<std::string, Json>>; // in the order of the text; of equal keys the last value, in the first place

    // What is no JSON, or not of the type or without the member that was asked for.
    class exception : public std::runtime_error {
    public:
        using std::runtime_error::runtime_error;
    };

    // Deeper than any file of a bundle.
    static constexpr int MAX_DEPTH = 200;

    // Throws Json::exception.
    static Json parse(std::string_view text);

    Json() = default;
    explicit Json(bool value) : value_(value) {}
    explicit Json(int64_t value) : value_(value) {}
    explicit Json(uint64_t value) : value_(value) {}
    explicit Json(double value) : value_(value) {}
    explicit Json(std::string value) : value_(std::move(value)) {}
    explicit Json(array_t value) : value_(std::move(value)) {}
    explicit Json(object_t value) : value_(std::move(value)) {}

    bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
    bool is_boolean() const { return std::holds_alternative<bool>(value_); }
    bool is_number_unsigned() const { return std::holds_alternative<uint64_t>(value_); }
    bool is_number_integer() const { return is_number_unsigned() || std::holds_alternative<int64_t>(value_); }
    bool is_number_float() const { return std::holds_alternative<double>(value_); }
    bool is_number() const { return is_number_integer() || is_number_float(); }
    bool is_string() const { return std::holds_alternative<std::string>(value_); }
    bool is_array() const { return std::holds_alternative<array_t>(value_); }
    bool is_object() const { return std::holds_alternative<object_t>(value_); }

    bool boolean() const { return as<bool>("a boolean"); }
    const std::string &text() const { return as<std::string>("a string"); }
    const array_t &array() const { return as<array_t>("an array"); }
    const object_t &object() const { return as<object_t>("an object"); }
    // Of any number. A whole one that does not fit wraps or rounds: ask for its kind first.
    int64_t integer() const;
    uint64_t unsigned_integer() const { return static_cast<uint64_t>(integer()); }
    double number() const;

    // The member of an object, or null where there is none.
    const Json *find(std::string_view name) const;
    bool contains(std::string_view name) const { return find(name) != nullptr; }
    const Json &at(std::string_view name) const;

private:
    friend class JsonBuilder;
    template <typename Value> const Value &as(const char *kind) const {
        if (const Value *value = std::get_if<Value>(&value_)) return *value;
        throw exception(std::string("expected ") + kind);
    }

    std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, array_t, object_t> value_;
};

} // namespace janus
