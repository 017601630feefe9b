// How a call is stopped from outside.
#pragma once

#include <atomic>
#include <string>

#include "error.h"

// Lock-free, so that a signal handler may set it.
struct janus_cancel_token {
    std::atomic<bool> is_set{false};
};

namespace janus {

inline bool is_set(const janus_cancel_token *token) { return token && token->is_set.load(std::memory_order_relaxed); }

[[noreturn]] inline void stop(const std::string &after) { throw Error(JANUS_CANCELLED, "cancelled after " + after); }

} // namespace janus
