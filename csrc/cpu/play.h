// One thread of the CPU in the place of a block of threads, which it plays phase by phase, in either order.
#pragma once

#include <cstring>
#include <memory>

#include "privkt/blocks/team.h"

namespace privkt {

extern bool played_backwards;

namespace {

template <typename Program>
struct PlayedTeam {
  std::unique_ptr<typename Program::Registers[]> registers{new typename Program::Registers[Program::kThreads]};
  bool backwards = played_backwards;

  template <typename Work>
  void apart(Work work) {
    for (int i = 0; i < Program::kThreads; ++i) {
      const int thread = backwards ? Program::kThreads - 1 - i : i;
      work(thread, registers[size_t(thread)]);
    }
  }

  template <typename Work>
  void each(Work work) {
    apart(work);
  }
};

// Blocks begin, as on a GPU, with whatever memory holds: NaN here, so that a read before a write shows.
struct Play {
  template <typename Program>
  int operator()(const Program &program) const {
    PlayedTeam<Program> team;
    const std::unique_ptr<typename Program::Shared> shared(new typename Program::Shared);
    const int64_t blocks = program.blocks();
    for (int64_t i = 0; i < blocks; ++i) {
      memset(static_cast<void *>(shared.get()), 0xff, sizeof(typename Program::Shared));
      memset(static_cast<void *>(team.registers.get()), 0xff, sizeof(typename Program::Registers) * Program::kThreads);
      Program::run(program, team, *shared, team.backwards ? blocks - 1 - i : i);
    }
    return 0;
  }
};

}  // namespace

}  // namespace privkt
