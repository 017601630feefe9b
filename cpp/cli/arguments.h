// Command lines: options by name, the rest in order.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace cli {

// Bad usage, exit code 2.
class UsageError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// `value` is what help shows in its place; empty for a flag.
struct Option {
    const char *name;
    const char *value;
    const char *help;
    const char *short_name = "";
};

class Arguments {
public:
    // Throws UsageError.
    Arguments(const std::vector<std::string> &words, const std::vector<Option> &options);

    bool has(const std::string &name) const { return values_.count(name) != 0; }
    std::optional<std::string> text(const std::string &name) const;
    std::optional<double> number(const std::string &name, double low, double high) const;
    std::optional<uint64_t> whole(const std::string &name, uint64_t low, uint64_t high) const;
    const std::vector<std::string> &rest() const { return rest_; }

private:
    std::map<std::string, std::string> values_;
    std::vector<std::string> rest_;
};

std::string describe_options(const std::vector<Option> &options);

} // namespace cli
