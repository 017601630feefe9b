// What the two commands share: the model they open, what they write, how they stop.
#pragma once

#include <janus/janus.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "arguments.h"

namespace cli {

using Json = nlohmann::ordered_json;

std::vector<Option> with_common(std::vector<Option> options);
janus::Model open_model(const Arguments &arguments);
std::string bundle_of(const Arguments &arguments);
// A line for people on stderr, and one of JSON with where the result comes from on stdout.
void note(const std::string &text);
void print_result(const Arguments &arguments, Json values);
// Is set by Ctrl-C.
const janus::CancelToken &interrupted();
// Seed, top-k and top-p into a Drawing or a Question, and what Ctrl-C does to it.
template <typename Asked> void read_sampling(const Arguments &arguments, Asked &asked) {
    asked.seed = arguments.whole("--seed", 0, UINT64_MAX).value_or(0);
    asked.top_k = arguments.whole("--top-k", 0, UINT64_MAX).value_or(0);
    asked.top_p = arguments.number("--top-p", 0, 1).value_or(1);
    asked.cancel = &interrupted();
}
std::string format(const char *pattern, double number);

int generate(const std::vector<std::string> &words);
int describe(const std::vector<std::string> &words);

} // namespace cli
