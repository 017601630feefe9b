#include "arguments.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace cli {
namespace {

const Option &find_option(const std::vector<Option> &options, const std::string &name) {
    const auto found = std::find_if(options.begin(), options.end(),
                                    [&](const Option &option) { return name == option.name || name == option.short_name; });
    if (found == options.end()) throw UsageError("No such option: " + name);
    return *found;
}

template <typename Number> Number parse(const std::string &name, const std::string &text, Number low, Number high) {
    Number number{};
    const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
    if (result.ec != std::errc() || result.ptr != text.data() + text.size())
        throw UsageError("Invalid value for '" + name + "': '" + text + "' is not a valid number.");
    if (!(low <= number && number <= high)) {
        throw UsageError("Invalid value for '" + name + "': " + text + " is not in the range " + std::to_string(low) + " to " +
                         std::to_string(high) + ".");
    }
    return number;
}

} // namespace

Arguments::Arguments(const std::vector<std::string> &words, const std::vector<Option> &options) {
    bool only_rest = false;
    for (size_t i = 0; i < words.size(); ++i) {
        const std::string &word = words[i];
        if (only_rest || word.size() < 2 || word[0] != '-') {
            rest_.push_back(word);
        } else if (word == "--") {
            only_rest = true;
        } else {
            const size_t equals = word.rfind("--", 0) == 0 ? word.find('=') : word.npos;
            const Option &option = find_option(options, word.substr(0, equals));
            if (!*option.value && equals != word.npos) throw UsageError(std::string("Option '") + option.name + "' does not take a value.");
            if (*option.value && equals == word.npos && ++i == words.size())
                throw UsageError(std::string("Option '") + option.name + "' requires an argument.");
            values_[option.name] = !*option.value ? "" : equals == word.npos ? words[i] : word.substr(equals + 1);
        }
    }
}

std::optional<std::string> Arguments::text(const std::string &name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<double> Arguments::number(const std::string &name, double low, double high) const {
    if (!has(name)) return std::nullopt;
    return parse(name, *text(name), low, high);
}

std::optional<uint64_t> Arguments::whole(const std::string &name, uint64_t low, uint64_t high) const {
    if (!has(name)) return std::nullopt;
    return parse(name, *text(name), low, high);
}

std::string describe_options(const std::vector<Option> &options) {
    std::string text;
    for (const Option &option : options) {
        std::string line = "  " + std::string(option.name) + (*option.short_name ? std::string(", ") + option.short_name : "") +
                           (*option.value ? std::string(" ") + option.value : "");
        line.resize(std::max<size_t>(line.size() + 2, 34), ' ');
        text += line + option.help + "\n";
    }
    return text;
}

} // namespace cli
