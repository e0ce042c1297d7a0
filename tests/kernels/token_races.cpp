// The token kernels' blocks, each thread a thread of the CPU (races.h), copies landing late and at once.
//
// Called with an argument no thread waits inside a block, and there must be reports.
#include "races.h"

#include "privkt/blocks/exponential.h"
#include "privkt/blocks/flips.h"
#include "privkt/blocks/nearest.h"
#include "privkt/blocks/rejection.h"
#include "token_cases.h"

using namespace privkt;

namespace {

void compare(const Table &table, const Table &others, const std::vector<int32_t> &weights, bool totals_alone) {
  const TokenBlockKernels &played = played_token_kernels();
  const ByteQueries queries = {others.rows, nullptr, others.rows.count};
  const Levels levels = {2, true, int32_t(weights.size()) - 1};
  const WeightTable table_of_weights = {weights.data(), false};
  const int64_t words = table.rows.count, n = queries.count, k = 5;
  std::vector<int64_t> space(size_t(nearest_block_workspace(n, words, k) + token_sums_workspace(n, words) +
                                    flip_block_workspace(n, words) + extremes_block_workspace(n, words)));
  std::vector<int64_t> found(size_t(n), -1), wanted(size_t(n), -1);
  blocks::weight_totals(Race{}, queries, table.rows, levels, table_of_weights, found.data(), space.data());
  if (totals_alone) return;
  played.weight_totals(queries, table.rows, levels, table_of_weights, wanted.data(), space.data(), nullptr);
  same("weight_totals", found, wanted);

  std::vector<int64_t> starts(size_t(n) + 1), places(starts.size()), ids(starts.size());
  for (size_t i = 0; i < starts.size(); ++i) {
    starts[i] = places[i] = int64_t(i);
    ids[i] = int64_t(i) % words;
  }
  const auto draws = [&](std::vector<int64_t> &out) { return TokenDraws{starts.data(), places.data(), out.data(), key, 3, 11}; };
  const int64_t few = n < 4 ? n : 4;  // a block each
  blocks::exponential_draws(Race{}, queries, table.rows, levels, table_of_weights, draws(found), few, space.data());
  played.exponential_draws(queries, table.rows, levels, table_of_weights, draws(wanted), few, space.data(), nullptr);
  same("exponential_draws", found, wanted);

  std::vector<int32_t> near(size_t(words * k)), far(near.size()), near_played(near.size()), far_played(near.size());
  const ByteQueries all = {table.rows, nullptr, words};
  std::vector<int64_t> more(size_t(nearest_block_workspace(words, words, k)));
  played.nearest_words(all, table.rows, k, near_played.data(), far_played.data(), more.data(), nullptr);
  const NeighbourList list = {near_played.data(), far_played.data(), k};
  std::vector<int32_t> a(size_t(n * k)), b(a.size()), c(a.size()), d(a.size());
  const ByteQueries some = {others.rows, nullptr, few};
  blocks::nearest_words(Race{}, some, table.rows, k, a.data(), b.data(), space.data());
  played.nearest_words(some, table.rows, k, c.data(), d.data(), space.data(), nullptr);
  same("nearest_words", a, c);
  same("nearest_words' distances", b, d);
  blocks::row_extremes(Race{}, queries, table.rows, levels, weights.data(), table.norms.data(), a.data(), b.data(), space.data());
  played.row_extremes(queries, table.rows, levels, weights.data(), table.norms.data(), c.data(), d.data(), space.data(), nullptr);
  same("row_extremes", a, c);
  same("row_extremes' least", b, d);

  for (const int64_t rounds : {0, 2}) {
    const FixedTime fixed = {rounds, uint64_t(weights[0]) * k, uint64_t(weights[0])};
    blocks::rejection_draws(Race{}, table.rows, list, levels, table_of_weights, fixed, ids.data(), few, found.data(), key, 4, 5);
    played.rejection_draws(table.rows, list, levels, table_of_weights, fixed, ids.data(), few, wanted.data(), key, 4, 5, nullptr);
    same("rejection_draws", found, wanted);
  }
  blocks::flip_draws(Race{}, table.rows, levels, weights.data(), 20, ids.data(), few, found.data(), key, 5, 6, space.data());
  played.flip_draws(table.rows, levels, weights.data(), 20, ids.data(), few, wanted.data(), key, 5, 6, space.data(), nullptr);
  same("flip_draws", found, wanted);
}

}  // namespace

int main(int arguments, char **) {
  waits = arguments == 1;
  token_space = 1;  // one stripe, whose lists overflow
  std::vector<int32_t> weights(40);
  for (size_t t = 0; t < weights.size(); ++t) weights[t] = int32_t((1 << 20) / (1 + 3 * t));
  for (const bool late : {true, false}) {
    blocks::copies_land_late = late;
    compare(Table(530, 7, 16, 1, 20), Table(3, 7, 16, 2, 20), weights, !waits);
  }
  compare(Table(140, 150, 151, 3, 9), Table(130, 150, 151, 4, 9), weights, !waits);
  return failures == 0 ? 0 : 1;
}
