// The token kernels (exponential.h) for blocks of threads, made from privkt/blocks: on a GPU, and played on the CPU for tests.
//
// On a GPU every pointer but the key's is device memory and `stream` a cudaStream_t; they return a cudaError_t as int and wait
// for nothing. All decisions are made of the integers that the CPU makes them of, so that results are the CPU's.
#pragma once

#include "privkt/exponential.h"

namespace privkt {

// 64-bit integers of the workspaces that callers provide. Queries go in rounds of at least 128, so that they stay below
// token_space of them, 2^22 unless a test wants more rounds, where 128 queries do.
extern int64_t token_space;  // csrc/cpu/token_blocks.cpp
int64_t token_sums_workspace(int64_t queries, int64_t words);
int64_t nearest_block_workspace(int64_t queries, int64_t words, int64_t k);
int64_t extremes_block_workspace(int64_t queries, int64_t words);
int64_t flip_block_workspace(int64_t queries, int64_t words);

struct TokenBlockKernels {
  int (*weight_totals)(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                       int64_t *totals, int64_t *workspace, void *stream);
  // `drawn` draws, the last of draws.starts.
  int (*exponential_draws)(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                           const TokenDraws &draws, int64_t drawn, int64_t *workspace, void *stream);
  int (*nearest_words)(const ByteQueries &queries, const ByteRows &words, int64_t k, int32_t *ids, int32_t *distances,
                       int64_t *workspace, void *stream);
  int (*row_extremes)(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const int32_t *values,
                      const int32_t *word_values, int32_t *most, int32_t *least, int64_t *workspace, void *stream);
  int (*rejection_draws)(const ByteRows &words, const NeighbourList &list, const Levels &levels, const WeightTable &weights,
                         const FixedTime &fixed, const int64_t *ids, int64_t count, int64_t *out, const NoiseKey &key,
                         uint64_t step, uint64_t offset, void *stream);
  int (*flip_draws)(const ByteRows &words, const Levels &levels, const int32_t *weights, int bits, const int64_t *ids,
                    int64_t count, int64_t *out, const NoiseKey &key, uint64_t step, uint64_t offset, int64_t *workspace,
                    void *stream);
  int (*selected_words)(const ByteQueries &queries, const ByteRows &words, const Levels &levels, const WeightTable &weights,
                        const uint64_t *r, int64_t *words_drawn, int64_t *workspace, void *stream);
};

const TokenBlockKernels &played_token_kernels();
#if defined(PRIVKT_HAS_CUDA)
const TokenBlockKernels &cuda_token_kernels();
#endif

}  // namespace privkt
