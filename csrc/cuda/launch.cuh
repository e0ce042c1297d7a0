// GPU kernels out of the programs of privkt/blocks: a team is a block of threads.
#pragma once

#include <cuda_runtime.h>

#include "privkt/blocks/team.h"

namespace privkt {

template <typename Registers>
struct GpuTeam {
  Registers mine;

  template <typename Work>
  __device__ __forceinline__ void apart(Work work) {
    work(int(threadIdx.x), mine);
  }

  template <typename Work>
  __device__ __forceinline__ void each(Work work) {
    work(int(threadIdx.x), mine);
    __syncthreads();
  }
};

template <typename Program>
__global__ void __launch_bounds__(Program::kThreads) run_program(const __grid_constant__ Program program) {
  __shared__ typename Program::Shared shared;
  GpuTeam<typename Program::Registers> team;
  Program::run(program, team, shared, int64_t(blockIdx.x));
}

struct GpuLaunch {
  void *stream;

  template <typename Program>
  int operator()(const Program &program) const {
    const int64_t blocks = program.blocks();
    if (blocks == 0) return 0;
    if (blocks > INT32_MAX) return int(cudaErrorInvalidConfiguration);
    run_program<<<unsigned(blocks), Program::kThreads, 0, static_cast<cudaStream_t>(stream)>>>(program);
    return int(cudaGetLastError());
  }
};

}  // namespace privkt
