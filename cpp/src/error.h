// How everything in here fails: one exception, which the C interface turns into a status and a message.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "janus/janus.h"

namespace janus {

class Error : public std::exception {
public:
    Error(janus_status given_status, std::string text) : status(given_status), message(std::move(text)) {}
    const char *what() const noexcept override { return message.c_str(); }

    janus_status status;
    std::string message;
};

} // namespace janus
