#include <iostream>

#include "command.h"

namespace cli {
namespace {

const std::vector<Option> &options() {
    static const std::vector<Option> all = with_common({
        {"--ask", "QUESTION", "The question, about all images together; default: Describe this image."},
        {"--exif-orientation", "", "Turn photos upright as their EXIF says; the default."},
        {"--no-exif-orientation", "", "Leave them as stored, as the original Janus does."},
        {"--max-tokens", "N", "Longest answer, in tokens; default: 512."},
        {"--seed", "N", "The same seed gives the same answer; default: 0."},
        {"--temperature", "T", "Randomness of the draw; 0, the default, is greedy."},
        {"--top-k", "K", "Keep the K most likely ids; 0, the default, keeps all."},
        {"--top-p", "P", "Keep the most likely ids that reach this probability together; default: 1."},
    });
    return all;
}

} // namespace

int describe(const std::vector<std::string> &words) {
    const Arguments arguments(words, options());
    if (arguments.has("--help")) {
        std::cout << "Usage: janus-rt-cpp describe [OPTIONS] IMAGE...\n\nAnswer a question about one or several pictures.\n\n"
                  << describe_options(options());
        return 0;
    }
    if (arguments.rest().empty()) throw UsageError("Missing argument 'IMAGE...'.");
    janus::Question question;
    question.text = arguments.text("--ask").value_or("Describe this image.");
    question.max_tokens = static_cast<int>(arguments.whole("--max-tokens", 1, INT32_MAX).value_or(512));
    question.temperature = arguments.number("--temperature", 0, 1e308).value_or(0);
    read_sampling(arguments, question);
    janus::Model model = open_model(arguments);
    std::vector<janus::Image> images;
    for (const std::string &path : arguments.rest()) images.push_back(janus::Image::read(path, arguments.has("--no-exif-orientation")));
    for (const janus::Image &image : images) question.images.push_back(&image);
    const bool as_json = arguments.has("--json");
    std::string text;
    const janus::Answer answer = model.describe(question, [&](std::string_view piece) {
        text += piece;
        if (!as_json) std::cout << piece << std::flush;
    });
    if (!as_json) std::cout << std::endl;
    const double count = static_cast<double>(answer.num_tokens);
    if (!arguments.has("--quiet")) {
        note(std::to_string(answer.num_tokens) + (answer.num_tokens == 1 ? " token" : " tokens") + ", first after " +
             format("%.1f", (answer.encode_ms + answer.prefill_ms) / 1e3) + " s, " +
             format("%.1f", answer.steps_ms / std::max(count, 1.0)) + " ms each");
    }
    if (as_json) {
        print_result(
            arguments,
            {{"prompt", question.text},
             {"images", arguments.rest()},
             {"seed", question.seed},
             {"text", text},
             {"stop", answer.stop == JANUS_STOP_EOS ? "eos" : "length"},
             {"tokens", answer.num_tokens},
             {"timings",
              {{"load", answer.load_ms}, {"encode", answer.encode_ms}, {"prefill", answer.prefill_ms}, {"steps", answer.steps_ms}}}});
    }
    return 0;
}

} // namespace cli
