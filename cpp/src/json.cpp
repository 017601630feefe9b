#include "json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

namespace janus {

// Takes what nlohmann-json reads, one thing at a time.
class JsonBuilder : public nlohmann::json_sax<nlohmann::json> {
public:
    Json take() { return std::move(root_); }

    bool null() override { return add(Json()); }
    bool boolean(bool value) override { return add(Json(value)); }
    bool number_integer(number_integer_t value) override { return add(Json(static_cast<int64_t>(value))); }
    bool number_unsigned(number_unsigned_t value) override { return add(Json(static_cast<uint64_t>(value))); }
    bool number_float(number_float_t value, const string_t &) override { return add(Json(static_cast<double>(value))); }
    bool string(string_t &value) override { return add(Json(std::move(value))); }
    bool binary(binary_t &) override { return false; } // not in a text
    bool start_object(std::size_t) override { return open(Json(Json::object_t())); }
    bool start_array(std::size_t) override { return open(Json(Json::array_t())); }
    bool key(string_t &name) override {
        keys_.back() = std::move(name);
        return true;
    }
    bool end_object() override {
        drop_repeated(std::get<Json::object_t>(open_.back().value_));
        return close();
    }
    bool end_array() override { return close(); }
    bool parse_error(std::size_t, const std::string &, const nlohmann::detail::exception &error) override {
        // It begins with a code of its own, [json.exception.…].
        const std::string reason = error.what();
        const size_t code = reason.find("] ");
        throw Json::exception(code == reason.npos ? reason : reason.substr(code + 2));
    }

private:
    bool add(Json value) {
        if (open_.empty()) {
            root_ = std::move(value);
        } else if (auto *array = std::get_if<Json::array_t>(&open_.back().value_)) {
            array->push_back(std::move(value));
        } else {
            std::get<Json::object_t>(open_.back().value_).emplace_back(std::move(keys_.back()), std::move(value));
        }
        return true;
    }

    bool open(Json value) {
        if (open_.size() == Json::MAX_DEPTH)
            throw Json::exception("brackets nested more than " + std::to_string(Json::MAX_DEPTH) + " deep");
        open_.push_back(std::move(value));
        keys_.emplace_back();
        return true;
    }

    bool close() {
        Json value = std::move(open_.back());
        open_.pop_back();
        keys_.pop_back();
        return add(std::move(value));
    }

    static void drop_repeated(Json::object_t &members) {
        std::vector<size_t> order(members.size());
        std::iota(order.begin(), order.end(), size_t{0});
        std::sort(order.begin(), order.end(), [&](size_t one, size_t other) {
            const int compared = members[one].first.compare(members[other].first);
            return compared ? compared < 0 : one < other;
        });
        std::vector<size_t> repeated;
        for (size_t i = 0; i < order.size();) {
            size_t last = i;
            while (last + 1 < order.size() && members[order[last + 1]].first == members[order[i]].first) repeated.push_back(order[++last]);
            if (last > i) members[order[i]].second = std::move(members[order[last]].second);
            i = last + 1;
        }
        std::sort(repeated.begin(), repeated.end());
        for (size_t i = repeated.size(); i-- > 0;) members.erase(members.begin() + static_cast<std::ptrdiff_t>(repeated[i]));
    }

    Json root_;
    // Arrays and objects that are not complete, and the key that each of them waits to give a value to.
    std::vector<Json> open_;
    std::vector<std::string> keys_;
};

Json Json::parse(std::string_view text) {
    JsonBuilder builder;
    nlohmann::json::sax_parse(text, &builder);
    return builder.take();
}

int64_t Json::integer() const {
    if (const auto *number = std::get_if<uint64_t>(&value_)) return static_cast<int64_t>(*number);
    return as<int64_t>("a whole number");
}

double Json::number() const {
    if (const auto *number = std::get_if<uint64_t>(&value_)) return static_cast<double>(*number);
    if (const auto *number = std::get_if<int64_t>(&value_)) return static_cast<double>(*number);
    return as<double>("a number");
}

const Json *Json::find(std::string_view name) const {
    const object_t &members = object();
    const auto found = std::find_if(members.begin(), members.end(), [&](const auto &member) { return member.first == name; });
    return found == members.end() ? nullptr : &found->second;
}

const Json &Json::at(std::string_view name) const {
    if (const Json *member = find(name)) return *member;
    throw exception("key '" + std::string(name) + "' not found");
}

} // namespace janus
