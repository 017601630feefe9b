// A service in small: reads prompts line by line, draws them on two threads, writes NNN.png, and stops cleanly at Ctrl-C or the end of
// input.
//     service BUNDLE FOLDER < prompts.txt
#include <signal.h>

#include <condition_variable>
#include <deque>
#include <iostream>
#include <janus/janus.hpp>
#include <mutex>
#include <thread>

namespace {

struct Job {
    int number;
    std::string prompt;
};

// Prompts that wait; empty and closed, there is no more.
class Queue {
public:
    void push(Job job) {
        const std::lock_guard lock(mutex_);
        jobs_.push_back(std::move(job));
        changed_.notify_one();
    }
    void close() {
        const std::lock_guard lock(mutex_);
        closed_ = true;
        changed_.notify_all();
    }
    std::optional<Job> pop() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return closed_ || !jobs_.empty(); });
        if (jobs_.empty()) return std::nullopt;
        Job job = std::move(jobs_.front());
        jobs_.pop_front();
        return job;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Job> jobs_;
    bool closed_ = false;
};

janus::CancelToken stop;

void work(janus::Model &model, Queue &queue, const std::string &folder) {
    while (const auto job = queue.pop()) {
        janus::Drawing drawing;
        drawing.prompts = {job->prompt};
        drawing.seed = static_cast<std::uint64_t>(job->number);
        drawing.cancel = &stop;
        try {
            model.generate(drawing, [&](const janus::Picture &picture) {
                janus::Image(picture).write_png(folder + "/" + std::to_string(job->number) + ".png", {{"prompt", job->prompt}});
            });
        } catch (const janus::Exception &error) {
            std::cerr << job->number << ": " << error.code() << ": " << error.what() << std::endl; // the others go on
        }
    }
}

} // namespace

int main(int count, char **words) {
    if (count != 3) return std::cerr << "usage: service BUNDLE FOLDER < prompts.txt\n", 2;
    signal(SIGINT, [](int) { stop.cancel(); });
    try {
        janus::Model::Options options;
        options.disable_telemetry = true;
        janus::Model model(words[1], options);
        Queue queue;
        std::thread threads[2];
        for (std::thread &thread : threads) thread = std::thread(work, std::ref(model), std::ref(queue), std::string(words[2]));
        int number = 0;
        for (std::string line; std::getline(std::cin, line);) queue.push({number++, line});
        queue.close();
        for (std::thread &thread : threads) thread.join();
    } catch (const janus::Exception &error) {
        return std::cerr << error.what() << std::endl, 1;
    }
}
