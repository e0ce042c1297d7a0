// Python's face of the token kernels (exponential.h).
#include <memory>

#include "token_arguments.h"

namespace privkt {

void bind_tokens_cpu(py::module_ &m) {
  m.attr("TOKEN_ISAS") = built_token_isas();
  m.def("token_isa", [](const std::string &isa) { return std::string(token_kernels(isa.c_str()).isa); });
  m.def("amx_left_out", [] { return std::string(amx_left_out()); });
  m.def("weight_totals_cpu", [](const QueryArguments &queries, const WordArguments &words, const LevelArguments &how,
                                uintptr_t totals, const std::string &isa) {
    const TokenKernels &kernels = token_kernels(isa.c_str());
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    const std::unique_ptr<int64_t[]> workspace(new int64_t[size_t(token_workspace(words[3], words[2]))]);
    kernels.weight_totals(queries_at(queries, words[3]), words_at(words), levels_of(how), weights_of(how), at<int64_t>(totals),
                          workspace.get());
  });
  m.def("exponential_draws_cpu", [](const QueryArguments &queries, const WordArguments &words, const LevelArguments &how,
                                    uintptr_t starts, uintptr_t places, uintptr_t out, const py::bytes &key, uint64_t step,
                                    uint64_t offset, const std::string &isa) {
    const TokenKernels &kernels = token_kernels(isa.c_str());
    const TokenDraws draws = {at<int64_t>(starts), at<int64_t>(places), at<int64_t>(out), key_from(key), step, offset};
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    const std::unique_ptr<int64_t[]> workspace(new int64_t[size_t(token_workspace(words[3], words[2]))]);
    kernels.exponential_draws(queries_at(queries, words[3]), words_at(words), levels_of(how), weights_of(how), draws,
                              workspace.get());
  });
  m.def("nearest_words_cpu", [](const QueryArguments &queries, const WordArguments &words, int64_t k, uintptr_t ids,
                                uintptr_t distances, const std::string &isa) {
    const TokenKernels &kernels = token_kernels(isa.c_str());
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    const std::unique_ptr<int64_t[]> workspace(new int64_t[size_t(nearest_workspace(words[3], words[2], k))]);
    kernels.nearest_words(queries_at(queries, words[3]), words_at(words), k, at<int32_t>(ids), at<int32_t>(distances),
                          workspace.get());
  });
  m.def("row_extremes_cpu", [](const QueryArguments &queries, const WordArguments &words, const LevelArguments &how,
                               uintptr_t word_values, uintptr_t most, uintptr_t least, const std::string &isa) {
    const TokenKernels &kernels = token_kernels(isa.c_str());
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    const std::unique_ptr<int64_t[]> workspace(new int64_t[size_t(token_workspace(words[3], words[2]))]);
    kernels.row_extremes(queries_at(queries, words[3]), words_at(words), levels_of(how), at<int32_t>(uintptr_t(how[3])),
                         at<int32_t>(word_values), at<int32_t>(most), at<int32_t>(least), workspace.get());
  });
  m.def("rejection_draws_cpu", [](const WordArguments &words, uintptr_t near_ids, uintptr_t near_distances, int64_t k,
                                  const LevelArguments &how, const std::array<int64_t, 3> &fixed, uintptr_t ids, int64_t count,
                                  uintptr_t out, const py::bytes &key, uint64_t step, uint64_t offset, const std::string &isa) {
    const TokenKernels &kernels = token_kernels(isa.c_str());
    const NoiseKey words_of_key = key_from(key);
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    const std::unique_ptr<int64_t[]> workspace(new int64_t[size_t(rejection_workspace(k))]);
    kernels.rejection_draws(words_at(words), {at<int32_t>(near_ids), at<int32_t>(near_distances), k}, levels_of(how),
                            weights_of(how), {fixed[0], uint64_t(fixed[1]), uint64_t(fixed[2])}, at<int64_t>(ids), count,
                            at<int64_t>(out), words_of_key, step, offset, workspace.get());
  });
  m.def("flip_draws_cpu", [](const WordArguments &words, const LevelArguments &how, int bits, uintptr_t ids, int64_t count,
                             uintptr_t out, const py::bytes &key, uint64_t step, uint64_t offset, const std::string &isa) {
    const TokenKernels &kernels = token_kernels(isa.c_str());
    const NoiseKey words_of_key = key_from(key);
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    const std::unique_ptr<int64_t[]> workspace(new int64_t[size_t(flip_workspace(words[3], words[2]))]);
    kernels.flip_draws(words_at(words), levels_of(how), at<int32_t>(uintptr_t(how[3])), bits, at<int64_t>(ids), count,
                       at<int64_t>(out), words_of_key, step, offset, workspace.get());
  });
  m.def("table_totals_cpu", [](const WordArguments &words, const std::array<int64_t, 4> &piece, const LevelArguments &how,
                               uintptr_t totals, const std::string &isa) {
    const TokenKernels &kernels = token_kernels(isa.c_str());
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    const std::unique_ptr<int64_t[]> workspace(new int64_t[size_t(token_workspace(words[3], words[2]))]);
    kernels.table_totals(words_at(words), {piece[0], piece[1], piece[2], piece[3]}, levels_of(how), weights_of(how),
                         at<int64_t>(totals), workspace.get());
  });
  m.def("table_nearest_cpu", [](const WordArguments &words, const std::array<int64_t, 4> &piece, int64_t k, uintptr_t keys,
                                uintptr_t bounds, uintptr_t farthest, const std::string &isa) {
    const TokenKernels &kernels = token_kernels(isa.c_str());
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    const std::unique_ptr<int64_t[]> workspace(new int64_t[size_t(token_workspace(words[3], words[2]))]);
    kernels.table_nearest(words_at(words), {piece[0], piece[1], piece[2], piece[3]}, k,
                          {at<uint64_t>(keys), at<int32_t>(bounds), at<int32_t>(farthest)}, workspace.get());
  });
  m.def("selected_words_cpu", [](const QueryArguments &queries, const WordArguments &words, const LevelArguments &how,
                                 uintptr_t r, uintptr_t words_drawn, const std::string &isa) {
    const DefaultFloats floats;
    const std::unique_ptr<int64_t[]> workspace(new int64_t[size_t(token_workspace(words[3], words[2]))]);
    token_kernels(isa.c_str()).selected_words(queries_at(queries, words[3]), words_at(words), levels_of(how), weights_of(how),
                                              at<uint64_t>(r), at<int64_t>(words_drawn), workspace.get());
  });
}

}  // namespace privkt
