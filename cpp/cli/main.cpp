// janus-rt-cpp: janus-rt's `generate` and `describe` without Python.
#include <signal.h>

#include <iostream>

#include "command.h"

namespace {

constexpr int INTERRUPTED = 130;

janus::CancelToken &token() {
    static janus::CancelToken own;
    return own;
}

void on_interrupt(int) { token().cancel(); }

int run(const std::vector<std::string> &words) {
    const std::vector<std::string> rest(words.begin() + !words.empty(), words.end());
    if (!words.empty() && words[0] == "generate") return cli::generate(rest);
    if (!words.empty() && words[0] == "describe") return cli::describe(rest);
    if (!words.empty() && words[0] == "--version") {
        std::cout << "janus-rt-cpp " << janus_version() << std::endl;
        return 0;
    }
    const bool asked = !words.empty() && (words[0] == "--help" || words[0] == "-h");
    if (!asked && !words.empty()) std::cerr << "Error: No such command '" << words[0] << "'.\n";
    (asked ? std::cout : std::cerr) << "Usage: janus-rt-cpp generate PROMPT... | describe IMAGE... [OPTIONS]\n"
                                       "\n"
                                       "  generate  draw pictures of each PROMPT into numbered PNG files\n"
                                       "  describe  answer a question about one or several pictures\n"
                                       "\n"
                                       "Each command has --help; --version shows the version. Exit code 0, 1 (failed: one line on\n"
                                       "stderr), 2 (wrong usage) or 130 (Ctrl-C).\n";
    return asked ? 0 : 2;
}

} // namespace

const janus::CancelToken &cli::interrupted() { return token(); }

int main(int count, char **words) {
    token(); // before a signal can ask for it
    struct sigaction action{};
    action.sa_handler = on_interrupt;
    sigaction(SIGINT, &action, nullptr);
    try {
        const int code = run(std::vector<std::string>(words + 1, words + count));
        if (std::cout.flush()) return code;
        std::cerr << "Error: the output cannot be written; is the disk full, or stdout closed?" << std::endl;
        return 1;
    } catch (const cli::UsageError &error) {
        std::cerr << "Error: " << error.what() << std::endl;
        return 2;
    } catch (const janus::Exception &error) {
        if (error.status() == JANUS_CANCELLED) {
            std::cerr << "Interrupted" << std::endl;
            return INTERRUPTED;
        }
        std::cerr << "Error: " << error.what() << std::endl;
        return error.status() == JANUS_VALUE ? 2 : 1;
    } catch (const std::exception &error) {
        std::cerr << "Error: " << error.what() << std::endl;
        return 1;
    }
}
