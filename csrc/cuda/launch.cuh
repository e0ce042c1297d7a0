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

// Programs with more shared memory than a block has without asking for it; two of their blocks share a multiprocessor, so that
// one multiplies while the other looks at its sums.
constexpr size_t kStaticShared = 48 << 10;

template <typename Program>
__global__ void __launch_bounds__(Program::kThreads, 2) run_large_program(const __grid_constant__ Program program) {
  extern __shared__ __align__(16) unsigned char memory[];
  GpuTeam<typename Program::Registers> team;
  Program::run(program, team, *reinterpret_cast<typename Program::Shared *>(memory), int64_t(blockIdx.x));
}

struct GpuLaunch {
  void *stream;

  template <typename Program>
  int operator()(const Program &program) const {
    const int64_t blocks = program.blocks();
    if (blocks == 0) return 0;
    if (blocks > INT32_MAX) return int(cudaErrorInvalidConfiguration);
    const auto on = static_cast<cudaStream_t>(stream);
    constexpr size_t size = sizeof(typename Program::Shared);
    if constexpr (size > kStaticShared) {
      const cudaError_t failed =
          cudaFuncSetAttribute(run_large_program<Program>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(size));
      if (failed != cudaSuccess) return int(failed);
      run_large_program<<<unsigned(blocks), Program::kThreads, size, on>>>(program);
    } else {
      run_program<<<unsigned(blocks), Program::kThreads, 0, on>>>(program);
    }
    return int(cudaGetLastError());
  }
};

}  // namespace privkt
