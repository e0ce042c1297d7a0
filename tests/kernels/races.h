// Every thread of a block as a thread of the CPU, as a GPU runs it, for a compiler that finds races (-fsanitize=thread):
// a barrier too few, or two threads that write one place, is reported. Results must have the bits of the played blocks.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace {

bool waits = true;

template <typename Registers>
struct OneThread {
  int thread;
  pthread_barrier_t *barrier;
  Registers mine;

  template <typename Work>
  void apart(Work work) {
    work(thread, mine);
  }

  template <typename Work>
  void each(Work work) {
    work(thread, mine);
    if (waits) pthread_barrier_wait(barrier);
  }
};

struct Race {
  template <typename Program>
  int operator()(const Program &program) const {
    using Team = OneThread<typename Program::Registers>;
    const std::unique_ptr<typename Program::Shared> shared(new typename Program::Shared);
    pthread_barrier_t inside, between;
    pthread_barrier_init(&inside, nullptr, Program::kThreads);
    pthread_barrier_init(&between, nullptr, Program::kThreads);
    std::vector<std::thread> threads;
    for (int thread = 0; thread < Program::kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        const std::unique_ptr<Team> team(new Team{thread, &inside, {}});
        for (int64_t block = 0; block < program.blocks(); ++block) {
          Program::run(program, *team, *shared, block);
          pthread_barrier_wait(&between);  // the next block has this memory only when all have left it
        }
      });
    }
    for (std::thread &thread : threads) thread.join();
    pthread_barrier_destroy(&inside);
    pthread_barrier_destroy(&between);
    return 0;
  }
};

template <typename T>
std::vector<T> numbers(size_t count, T scale) {
  std::vector<T> x(count);
  for (size_t i = 0; i < count; ++i) x[i] = T(double(int64_t(i * 2654435761u % 1999) - 999) / 500.0 * double(scale));
  return x;
}

int failures = 0;

template <typename T>
void same(const char *what, const std::vector<T> &raced, const std::vector<T> &played) {
  if (memcmp(raced.data(), played.data(), raced.size() * sizeof(T)) != 0) {
    std::printf("%s differs\n", what);
    ++failures;
  }
}

}  // namespace
