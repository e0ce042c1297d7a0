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
  pthread_barrier_t *barriers;  // two, in turn
  int turn;
  Registers mine;

  template <typename Work>
  void apart(Work work) {
    work(thread, mine);
  }

  template <typename Work>
  void each(Work work) {
    work(thread, mine);
    if (waits) pthread_barrier_wait(&barriers[turn ^= 1]);
  }
};

// One barrier for all phases would hide races: a thread that is slow to leave it would be taken to know what others did before
// they arrived at it for the next time. At two in turn none can be that far ahead.
struct Race {
  template <typename Program>
  int operator()(const Program &program) const {
    using Team = OneThread<typename Program::Registers>;
    const std::unique_ptr<typename Program::Shared> shared(new typename Program::Shared);
    pthread_barrier_t inside[2], between[2];
    for (int i = 0; i < 2; ++i) {
      pthread_barrier_init(&inside[i], nullptr, Program::kThreads);
      pthread_barrier_init(&between[i], nullptr, Program::kThreads);
    }
    std::vector<std::thread> threads;
    for (int thread = 0; thread < Program::kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        const std::unique_ptr<Team> team(new Team{thread, inside, 0, {}});
        for (int64_t block = 0; block < program.blocks(); ++block) {
          Program::run(program, *team, *shared, block);
          pthread_barrier_wait(&between[block % 2]);  // the next block has this memory only when all have left it
        }
      });
    }
    for (std::thread &thread : threads) thread.join();
    for (int i = 0; i < 2; ++i) {
      pthread_barrier_destroy(&inside[i]);
      pthread_barrier_destroy(&between[i]);
    }
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
