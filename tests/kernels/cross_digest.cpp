// Runs the scalar kernels with nothing of Python, and prints what they compute, to compare one processor with another.
#include <cstdio>
#include <vector>

#include "privkt/kernels.h"

using namespace privkt;

static uint64_t digest = 0xcbf29ce484222325u;  // FNV-1a

static void mix(const void *data, size_t size) {
  for (size_t i = 0; i < size; ++i) digest = (digest ^ static_cast<const unsigned char *>(data)[i]) * 0x100000001b3u;
}

int main() {
  const int64_t batch = 5, width = 4111, count = 20000;
  uint64_t state = 1;
  std::vector<float> values(size_t(batch * width)), factors(batch), out(width), noise(count);
  for (float &x : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    x = float(int64_t(state >> 33)) * 0x1p-30f - 1.0f;
  }
  std::vector<double> sqnorms(batch), base(count);
  for (size_t i = 0; i < base.size(); ++i) base[i] = double(values[i]) * 3.0;
  std::vector<uint8_t> finite(batch);
  const CpuKernels &kernels = cpu_kernels();
  const Rows rows = {values.data(), Element::float32, batch, width, width, nullptr};
  kernels.row_sqnorms(rows, sqnorms.data(), false);
  kernels.clip_factors(sqnorms.data(), nullptr, batch, 1.0, double(width), 0.0, factors.data(), finite.data());
  kernels.clipped_sum(rows, factors.data(), out.data(), Element::float32, false, 1.0);
  std::vector<int64_t> cells(width, 1);
  kernels.clipped_sum(rows, factors.data(), cells.data(), Element::int64, true, 0x1p40);
  mix(cells.data(), cells.size() * 8);
  mix(sqnorms.data(), sqnorms.size() * 8);
  mix(factors.data(), factors.size() * 4);
  mix(out.data(), out.size() * 4);
  const int64_t steps = 261, p = 5, d = 39;  // beyond a chunk of steps; tiles that are not whole
  std::vector<float> side(size_t(3 * steps * (p + d))), workspace(kProductWorkspace), one(3, 0.75f);
  for (size_t i = 0; i < side.size(); ++i) side[i] = values[i % values.size()] * (i % 7 == 0 ? 0x1p-20f : 1.0f);
  const Sequence left = {side.data(), Element::float32, p, steps * p, p};
  const Sequence right = {side.data() + 3 * steps * p, Element::float32, d, steps * d, d};
  const Products products = {left, right, 3, steps, nullptr};
  std::vector<double> norms(3), total(size_t(p * d));
  std::vector<int64_t> grid(size_t(p * d));
  kernels.product_sqnorms_tiles(products, norms.data(), false, workspace.data());
  mix(norms.data(), norms.size() * 8);
  kernels.product_sqnorms_gram(products, norms.data(), false);
  mix(norms.data(), norms.size() * 8);
  kernels.clipped_product_sum(products, one.data(), total.data(), Element::float64, d, 1.0, workspace.data());
  mix(total.data(), total.size() * 8);
  kernels.clipped_product_sum(products, one.data(), grid.data(), Element::int64, d, 0x1p20, workspace.data());
  mix(grid.data(), grid.size() * 8);
  NoiseKey key = {{1, 2, 3, 4, 5, 6, 7, 8}};
  for (const void *start : {static_cast<const void *>(nullptr), static_cast<const void *>(base.data())}) {
    kernels.noise(noise.data(), start, Element::float64, count, 0.7, key, uint64_t(1) << 40, (uint64_t(1) << 33) + 5);
    mix(noise.data(), noise.size() * 4);
  }
  const int64_t labels[batch] = {0, 17, -1, width - 1, 2048};
  std::vector<double> losses(batch), stats(2 * batch);
  for (const float cap : {0.0f, 2.5f}) {
    std::vector<float> logits = values;
    kernels.head_losses({logits.data(), batch, width, width, labels, 9.0f, cap}, losses.data(), stats.data(), true);
    mix(logits.data(), logits.size() * 4);
    mix(losses.data(), losses.size() * 8);
    logits = values;
    kernels.head_gradient({logits.data(), batch, width - 100, width, labels, 9.0f, cap}, stats.data(), 50);
    mix(logits.data(), logits.size() * 4);
  }
  std::vector<int64_t> drawn(200);
  kernels.discrete_gaussian(drawn.data(), 200, 0x1.8p20, key, uint64_t(1) << 40, (uint64_t(1) << 33) + 5, false);
  mix(drawn.data(), drawn.size() * 8);
  std::vector<float> momentum(noise), second(count, 0.25f);
  const NoisyMean mean = {base.data(), Element::float64, 1.0, 0.7, key, 3, 5, 7.0f, false};
  kernels.sgd_update(mean, {0.1f, 0.9f, 1.0f, 0.01f, true, false}, {noise.data(), Element::float32, count}, momentum.data());
  const AdamStep adam = {0.1f, 0.1f, 0.999f, 0.001f, 0.5f, 0.7f, 1e-8f, 0.0f, 0.9f, 0.0f, 0.0f};
  kernels.adam_update(mean, adam, {noise.data(), Element::float32, count}, momentum.data(), second.data());
  mix(noise.data(), noise.size() * 4);
  mix(second.data(), second.size() * 4);
  std::printf("%s %016llx\n", kernels.isa, static_cast<unsigned long long>(digest));
}
