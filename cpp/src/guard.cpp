#include "guard.h"

#include "utf8.h"

namespace janus {
namespace {

constexpr size_t CAPACITY = 4096;
thread_local char last_message[CAPACITY] = "";

} // namespace

void set_message(std::string_view message) noexcept {
    const size_t size = cut(message, CAPACITY - 1).size();
    std::memcpy(last_message, message.data(), size);
    // One line, whatever a file's name holds.
    std::replace_if(last_message, last_message + size, [](char letter) { return letter == '\n' || letter == '\r' || letter == '\0'; }, ' ');
    last_message[size] = '\0';
}

const char *get_message() noexcept { return last_message; }

} // namespace janus
