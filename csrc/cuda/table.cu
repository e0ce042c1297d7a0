// All kernels that are made from privkt/blocks.
#include <cuda_runtime.h>

#include "kernels.cuh"
#include "tokens.cuh"

namespace privkt {

const BlockKernels &cuda_kernels() {
  static const BlockKernels kernels = {gpu::row_sqnorms,
                                       gpu::clip_factors,
                                       gpu::clipped_sum,
                                       gpu::noise,
                                       gpu::discrete_gaussian,
                                       gpu::sgd_update,
                                       gpu::adam_update,
                                       gpu::product_sqnorms_tiles,
                                       gpu::product_sqnorms_gram,
                                       gpu::clipped_product_sum,
                                       gpu::embedding_sqnorms,
                                       gpu::clipped_embedding_sum,
                                       gpu::tied_cross};
  return kernels;
}

const TokenBlockKernels &cuda_token_kernels() {
  static const TokenBlockKernels kernels = {gpu::weight_totals,   gpu::exponential_draws, gpu::nearest_words, gpu::row_extremes,
                                            gpu::rejection_draws, gpu::flip_draws,        gpu::selected_words};
  return kernels;
}

const char *cuda_error_text(int code) { return cudaGetErrorString(cudaError_t(code)); }

}  // namespace privkt
