// The token kernels' blocks, played, against the CPU's scalar kernels: what test_block_faults.py plants faults in.
#include <cstdio>

#include "token_cases.h"

namespace privkt {

void play_backwards(bool backwards);

namespace scalar {
void weight_totals(const ByteQueries &, const ByteRows &, const Levels &, const WeightTable &, int64_t *, int64_t *);
void exponential_draws(const ByteQueries &, const ByteRows &, const Levels &, const WeightTable &, const TokenDraws &, int64_t *);
void nearest_words(const ByteQueries &, const ByteRows &, int64_t, int32_t *, int32_t *, int64_t *);
void row_extremes(const ByteQueries &, const ByteRows &, const Levels &, const int32_t *, const int32_t *, int32_t *, int32_t *,
                  int64_t *);
void rejection_draws(const ByteRows &, const NeighbourList &, const Levels &, const WeightTable &, const FixedTime &,
                     const int64_t *, int64_t, int64_t *, const NoiseKey &, uint64_t, uint64_t, int64_t *);
void flip_draws(const ByteRows &, const Levels &, const int32_t *, int, const int64_t *, int64_t, int64_t *, const NoiseKey &,
                uint64_t, uint64_t, int64_t *);
void selected_words(const ByteQueries &, const ByteRows &, const Levels &, const WeightTable &, const uint64_t *, int64_t *,
                    int64_t *);
}  // namespace scalar

}  // namespace privkt

namespace {

int failures = 0;

template <typename T>
void same(const char *what, const std::vector<T> &played, const std::vector<T> &wanted) {
  if (played == wanted) return;
  std::printf("%s differs\n", what);
  ++failures;
}

void compare(const Table &table, const Table &others) {
  const TokenBlockKernels &played = played_token_kernels();
  const ByteQueries queries = {others.rows, nullptr, others.rows.count};
  const int64_t words = table.rows.count, n = queries.count, k = 5, width = table.rows.width;
  std::vector<int32_t> values(40);
  for (size_t t = 0; t < values.size(); ++t) values[t] = int32_t((1 << 20) / (1 + 3 * t));
  const Levels levels = {2, true, int32_t(values.size()) - 1};
  const WeightTable weights = {values.data(), false};
  std::vector<int64_t> cpu(size_t(nearest_workspace(width, words, k) + flip_workspace(width, words) + rejection_workspace(k)));
  std::vector<int64_t> space(size_t(nearest_block_workspace(words, words, k) + nearest_block_workspace(n, words, k) +
                                    token_sums_workspace(n, words) + flip_block_workspace(n, words) +
                                    extremes_block_workspace(n, words)));
  std::vector<int64_t> found(size_t(n), -1), wanted(size_t(n), -1), starts(size_t(n) + 1), ids(starts.size());
  for (size_t i = 0; i < starts.size(); ++i) {
    starts[i] = int64_t(i);
    ids[i] = int64_t(i) * 3 % words;
  }
  played.weight_totals(queries, table.rows, levels, weights, found.data(), space.data(), nullptr);
  scalar::weight_totals(queries, table.rows, levels, weights, wanted.data(), cpu.data());
  same("weight_totals", found, wanted);
  const auto draws = [&](std::vector<int64_t> &out) { return TokenDraws{starts.data(), starts.data(), out.data(), key, 3, 11}; };
  played.exponential_draws(queries, table.rows, levels, weights, draws(found), n, space.data(), nullptr);
  scalar::exponential_draws(queries, table.rows, levels, weights, draws(wanted), cpu.data());
  same("exponential_draws", found, wanted);

  const ByteQueries all = {table.rows, nullptr, words};
  std::vector<int32_t> near(size_t(words * k)), far(near.size()), near_cpu(near.size()), far_cpu(near.size());
  played.nearest_words(all, table.rows, k, near.data(), far.data(), space.data(), nullptr);
  scalar::nearest_words(all, table.rows, k, near_cpu.data(), far_cpu.data(), cpu.data());
  same("nearest_words", near, near_cpu);
  same("nearest_words' distances", far, far_cpu);
  const NeighbourList list = {near_cpu.data(), far_cpu.data(), k};
  std::vector<int32_t> most(size_t(n), 0), least(size_t(n), 0), most_cpu(most), least_cpu(least);
  const int32_t *norms = table.norms.data();
  played.row_extremes(queries, table.rows, levels, values.data(), norms, most.data(), least.data(), space.data(), nullptr);
  scalar::row_extremes(queries, table.rows, levels, values.data(), norms, most_cpu.data(), least_cpu.data(), cpu.data());
  same("row_extremes", most, most_cpu);
  same("row_extremes' least", least, least_cpu);
  for (const int64_t rounds : {0, 2}) {
    const FixedTime fixed = {rounds, uint64_t(values[0]) * k, uint64_t(values[0])};
    played.rejection_draws(table.rows, list, levels, weights, fixed, ids.data(), n, found.data(), key, 4, 5, nullptr);
    scalar::rejection_draws(table.rows, list, levels, weights, fixed, ids.data(), n, wanted.data(), key, 4, 5, cpu.data());
    same("rejection_draws", found, wanted);
  }
  played.flip_draws(table.rows, levels, values.data(), 20, ids.data(), n, found.data(), key, 5, 6, space.data(), nullptr);
  scalar::flip_draws(table.rows, levels, values.data(), 20, ids.data(), n, wanted.data(), key, 5, 6, cpu.data());
  same("flip_draws", found, wanted);
}

// Every integer below the total of a query's small weights.
void enumerate(const Table &table) {
  const Levels levels = {0, true, 4};
  const int32_t values[] = {9, 4, 2, 2, 1};
  const WeightTable weights = {values, false};
  const int64_t words = table.rows.count, own = 7;
  std::vector<int64_t> cpu(size_t(token_workspace(table.rows.width, words)));
  int64_t total = 0;
  scalar::weight_totals({table.rows, &own, 1}, table.rows, levels, weights, &total, cpu.data());
  std::vector<int64_t> ids(size_t(total), own), found(ids), wanted(ids);
  std::vector<uint64_t> r(ids.size());
  for (size_t i = 0; i < r.size(); ++i) r[i] = i;
  std::vector<int64_t> space(size_t(token_sums_workspace(total, words)));
  const ByteQueries queries = {table.rows, ids.data(), total};
  played_token_kernels().selected_words(queries, table.rows, levels, weights, r.data(), found.data(), space.data(), nullptr);
  scalar::selected_words(queries, table.rows, levels, weights, r.data(), wanted.data(), cpu.data());
  same("selected_words", found, wanted);
}

}  // namespace

int main() {
  for (const bool backwards : {false, true}) {
    play_backwards(backwards);
    enumerate(Table(300, 3, 4, 7, 2));
    token_space = 1;  // one stripe, whose lists overflow
    compare(Table(530, 7, 16, 1, 20), Table(3, 7, 16, 2, 20));
    token_space = int64_t(1) << 22;
    compare(Table(530, 7, 16, 1, 20), Table(3, 7, 16, 2, 20));
    compare(Table(300, 70, 72, 3, 9), Table(130, 70, 72, 4, 9));
    compare(Table(40, 200, 201, 5, 5), Table(20, 200, 201, 6, 5));
  }
  return failures == 0 ? 0 : 1;
}
