// Ends a run of a graph from outside, where a step takes seconds.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "cancel.h"

namespace janus {

// Watches a token for as long as it lives, from a thread of its own: a signal handler, which may set the token, must not do more than
// that. Without a token it does nothing, and has no thread.
class RunStop {
public:
    explicit RunStop(const janus_cancel_token *token);
    ~RunStop();
    RunStop(const RunStop &) = delete;
    RunStop &operator=(const RunStop &) = delete;

    bool is_watching() const { return token_ != nullptr; }
    bool is_set() const { return janus::is_set(token_); }

    // Has `end` called, by another thread, if the token is set while this lives.
    class During {
    public:
        During(RunStop &stop, std::function<void()> end);
        ~During();
        During(const During &) = delete;
        During &operator=(const During &) = delete;

    private:
        RunStop &stop_;
    };

private:
    void watch();

    const janus_cancel_token *token_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::function<void()> end_; // of the run that is on
    bool over_ = false;
    std::thread thread_;
};

} // namespace janus
