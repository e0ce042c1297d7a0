// Python's face of the token kernels in blocks of threads: the CPU's arguments but for the instruction set, what is said at
// each, then a workspace where one is needed, and the stream.
#include "privkt/token_blocks.h"

#include "token_arguments.h"

namespace privkt {

namespace {

void bind_all(py::module_ &m, const std::string &suffix, const TokenBlockKernels &kernels) {
  const TokenBlockKernels *k = &kernels;
  m.def(("weight_totals" + suffix).c_str(), [k](const QueryArguments &queries, const WordArguments &words,
                                                const LevelArguments &how, uintptr_t totals, uintptr_t workspace,
                                                uintptr_t stream) {
    check_launch(k->weight_totals(queries_at(queries, words[3]), words_at(words), levels_of(how), weights_of(how),
                                  at<int64_t>(totals), at<int64_t>(workspace), at<void>(stream)), "weight_totals");
  });
  // `drawn`: how many draws there are.
  m.def(("exponential_draws" + suffix).c_str(),
        [k](const QueryArguments &queries, const WordArguments &words, const LevelArguments &how, uintptr_t starts,
            uintptr_t places, uintptr_t out, const py::bytes &key, uint64_t step, uint64_t offset, int64_t drawn,
            uintptr_t workspace, uintptr_t stream) {
    const TokenDraws draws = {at<int64_t>(starts), at<int64_t>(places), at<int64_t>(out), key_from(key), step, offset};
    check_launch(k->exponential_draws(queries_at(queries, words[3]), words_at(words), levels_of(how), weights_of(how), draws,
                                      drawn, at<int64_t>(workspace), at<void>(stream)), "exponential_draws");
  });
  m.def(("nearest_words" + suffix).c_str(), [k](const QueryArguments &queries, const WordArguments &words, int64_t count,
                                                uintptr_t ids, uintptr_t distances, uintptr_t workspace, uintptr_t stream) {
    check_launch(k->nearest_words(queries_at(queries, words[3]), words_at(words), count, at<int32_t>(ids),
                                  at<int32_t>(distances), at<int64_t>(workspace), at<void>(stream)), "nearest_words");
  });
  m.def(("row_extremes" + suffix).c_str(),
        [k](const QueryArguments &queries, const WordArguments &words, const LevelArguments &how, uintptr_t word_values,
            uintptr_t most, uintptr_t least, uintptr_t workspace, uintptr_t stream) {
    check_launch(k->row_extremes(queries_at(queries, words[3]), words_at(words), levels_of(how), at<int32_t>(uintptr_t(how[3])),
                                 at<int32_t>(word_values), at<int32_t>(most), at<int32_t>(least), at<int64_t>(workspace),
                                 at<void>(stream)), "row_extremes");
  });
  m.def(("rejection_draws" + suffix).c_str(),
        [k](const WordArguments &words, uintptr_t near_ids, uintptr_t near_distances, int64_t count_near,
            const LevelArguments &how, const std::array<int64_t, 3> &fixed, uintptr_t ids, int64_t count, uintptr_t out,
            const py::bytes &key, uint64_t step, uint64_t offset, uintptr_t stream) {
    check_launch(k->rejection_draws(words_at(words), {at<int32_t>(near_ids), at<int32_t>(near_distances), count_near},
                                    levels_of(how), weights_of(how), {fixed[0], uint64_t(fixed[1]), uint64_t(fixed[2])},
                                    at<int64_t>(ids), count, at<int64_t>(out), key_from(key), step, offset, at<void>(stream)),
                 "rejection_draws");
  });
  m.def(("flip_draws" + suffix).c_str(),
        [k](const WordArguments &words, const LevelArguments &how, int bits, uintptr_t ids, int64_t count, uintptr_t out,
            const py::bytes &key, uint64_t step, uint64_t offset, uintptr_t workspace, uintptr_t stream) {
    check_launch(k->flip_draws(words_at(words), levels_of(how), at<int32_t>(uintptr_t(how[3])), bits, at<int64_t>(ids), count,
                               at<int64_t>(out), key_from(key), step, offset, at<int64_t>(workspace), at<void>(stream)),
                 "flip_draws");
  });
  m.def(("selected_words" + suffix).c_str(),
        [k](const QueryArguments &queries, const WordArguments &words, const LevelArguments &how, uintptr_t r,
            uintptr_t words_drawn, uintptr_t workspace, uintptr_t stream) {
    check_launch(k->selected_words(queries_at(queries, words[3]), words_at(words), levels_of(how), weights_of(how),
                                   at<uint64_t>(r), at<int64_t>(words_drawn), at<int64_t>(workspace), at<void>(stream)),
                 "selected_words");
  });
}

}  // namespace

void bind_token_blocks(py::module_ &m) {
  m.def("limit_token_space", [](int64_t integers) {  // for tests: queries then go in more rounds
    const int64_t before = token_space;
    token_space = integers;
    return before;
  });
  m.def("token_sums_workspace", &token_sums_workspace);
  m.def("nearest_block_workspace", &nearest_block_workspace);
  m.def("extremes_block_workspace", &extremes_block_workspace);
  m.def("flip_block_workspace", &flip_block_workspace);
  bind_all(m, "_blocks", played_token_kernels());
#if defined(PRIVKT_HAS_CUDA)
  bind_all(m, "_cuda", cuda_token_kernels());
#endif
}

}  // namespace privkt
