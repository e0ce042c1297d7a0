// Every rule of the training kernels' blocks, each thread a thread of the CPU (races.h).
//
// Called with an argument no thread waits inside a block, and there must be reports.
#include "races.h"

#include "privkt/blocks/discrete.h"
#include "privkt/blocks/gram.h"
#include "privkt/blocks/rows.h"
#include "privkt/blocks/tied.h"
#include "privkt/blocks/updates.h"

using namespace privkt;

int main(int arguments, char **) {
  waits = arguments == 1;
  const int64_t batch = 2, steps = 37, p = 70, d = 66;
  const auto left = numbers<float>(size_t(batch * steps * p), 1), right = numbers<float>(size_t(batch * steps * d), 2);
  const Products products = {{left.data(), Element::float32, p, steps * p, p},
                             {right.data(), Element::float32, d, steps * d, d},
                             batch,
                             steps,
                             nullptr};
  const std::vector<float> factors = {0.25f, 0.75f};
  const BlockKernels &played = played_kernels();
  std::vector<double> norms(2), wanted(2), space(size_t(product_workspace(batch, steps, d, true) + batch * d));
  blocks::product_sqnorms_tiles(Race{}, products, norms.data(), false, space.data());
  played.product_sqnorms_tiles(products, wanted.data(), false, space.data(), nullptr);
  same("product_sqnorms by tiles", norms, wanted);
  blocks::product_sqnorms_gram(Race{}, products, norms.data(), false, space.data());
  played.product_sqnorms_gram(products, wanted.data(), false, space.data(), nullptr);
  same("product_sqnorms by inner products", norms, wanted);
  const Rows rows = {left.data(), Element::float32, batch, steps * p, steps * p, nullptr};
  blocks::row_sqnorms(Race{}, rows, norms.data(), false);
  played.row_sqnorms(rows, wanted.data(), false, nullptr);
  same("row_sqnorms", norms, wanted);
  std::vector<double> out(size_t(p * d)), sum(size_t(p * d));
  blocks::clipped_product_sum(Race{}, products, factors.data(), out.data(), Element::float64, d, 1.0);
  played.clipped_product_sum(products, factors.data(), sum.data(), Element::float64, d, 1.0, nullptr);
  same("clipped_product_sum", out, sum);

  std::vector<int64_t> ids(size_t(batch * steps)), places(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = int64_t(i % size_t(steps)) / 3;
    places[i] = int64_t(i % size_t(steps));
  }
  const Lookups lookups = {ids.data(), places.data(), right.data(), Element::float32, d,      steps * d,
                           d,          batch,         steps,        nullptr,          2};
  blocks::embedding_sqnorms(Race{}, lookups, norms.data(), false, space.data());
  played.embedding_sqnorms(lookups, wanted.data(), false, space.data(), nullptr);
  same("embedding_sqnorms", norms, wanted);
  Lookups one = lookups;  // sorted together: one sample's are
  one.batch = 1;
  std::vector<float> few(size_t(steps * d)), those(few.size());
  blocks::clipped_embedding_sum(Race{}, one, factors.data(), few.data(), Element::float32, 1.0);
  played.clipped_embedding_sum(one, factors.data(), those.data(), Element::float32, 1.0, nullptr);
  same("clipped_embedding_sum", few, those);
  const auto touched = numbers<float>(size_t(batch * 5 * steps), 1);
  const Products head = {{touched.data(), Element::float32, steps, 5 * steps, steps},
                         {right.data(), Element::float32, d, steps * d, d},
                         batch,
                         5,
                         nullptr};
  blocks::tied_cross(Race{}, lookups, head, norms.data(), space.data());
  played.tied_cross(lookups, head, wanted.data(), space.data(), nullptr);
  same("tied_cross", norms, wanted);

  const auto total = numbers<double>(1003, 1);
  auto weight = numbers<float>(1003, 1), other = weight;
  const NoiseKey key = {{1, 2, 3, 4, 5, 6, 7, 8}};
  const NoisyMean mean = {total.data(), Element::float64, 1.0, 0.5, key, 3, 13, 4.0f, false};
  const SgdStep how = {0.1f, 0.0f, 1.0f, 0.0f, false, false};
  blocks::sgd_update(Race{}, mean, how, {weight.data(), Element::float32, 1003}, nullptr);
  played.sgd_update(mean, how, {other.data(), Element::float32, 1003}, nullptr, nullptr);
  same("sgd_update", weight, other);
  std::vector<int64_t> drawn(300), cells(300);
  blocks::discrete_gaussian(Race{}, drawn.data(), 300, 1.5, key, 3, 5, false);
  played.discrete_gaussian(cells.data(), 300, 1.5, key, 3, 5, false, nullptr);
  same("discrete_gaussian", drawn, cells);
  return failures == 0 ? 0 : 1;
}
