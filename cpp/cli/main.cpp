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
    (asked ? std::cout : std::cerr) << "Usage: janus-rt-cpp generate PROMPT... | describe IMAGE... [OPTIONS]\n"
                                       "Each command has --help; --version shows the version.\n";
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
        return run(std::vector<std::string>(words + 1, words + count));
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
