#include "run_stop.h"

#include <signal.h>

#include <chrono>

namespace janus {
namespace {

// How often the token is looked at: as often as the Python runtime does.
constexpr std::chrono::milliseconds LOOK(50);

} // namespace

RunStop::RunStop(const janus_cancel_token *token) : token_(token) {
    if (!token_) return;
    // Signals are the host's, for its own threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        thread_ = std::thread([this] { watch(); });
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

RunStop::~RunStop() {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        over_ = true;
    }
    changed_.notify_one();
    thread_.join();
}

void RunStop::watch() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!over_) {
        if (is_set() && end_) end_();
        changed_.wait_for(lock, LOOK);
    }
}

RunStop::During::During(RunStop &stop, std::function<void()> end) : stop_(stop) {
    const std::lock_guard<std::mutex> lock(stop_.mutex_);
    stop_.end_ = std::move(end);
}

RunStop::During::~During() {
    const std::lock_guard<std::mutex> lock(stop_.mutex_);
    stop_.end_ = nullptr;
}

} // namespace janus
