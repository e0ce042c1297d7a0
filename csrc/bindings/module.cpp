// Python's face of the kernels: integers for pointers, checks left to the op wrappers in privkt/kernels.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "arguments.h"
#include "build_record.h"
#include "privkt/gaussian.h"

using namespace privkt;

namespace {

void bind_cpu(py::module_ &m) {
  m.def("row_sqnorms_cpu", [](uintptr_t data, int element, int64_t batch, int64_t width, int64_t stride, uintptr_t mask,
                              uintptr_t sqnorms, bool accumulate) {
    const CpuKernels &kernels = cpu_kernels();
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    kernels.row_sqnorms(rows_at(data, element, batch, width, stride, mask), at<double>(sqnorms), accumulate);
  });
  m.def("clip_factors_cpu", [](uintptr_t sqnorms, uintptr_t mask, int64_t batch, double max_norm, double width, double slack,
                               uintptr_t factors, uintptr_t finite) {
    const DefaultFloats floats;
    cpu_kernels().clip_factors(at<double>(sqnorms), at<uint8_t>(mask), batch, max_norm, width, slack, at<float>(factors),
                               at<uint8_t>(finite));
  });
  m.def("clipped_sum_cpu", [](uintptr_t data, int element, int64_t batch, int64_t width, int64_t stride, uintptr_t mask,
                              uintptr_t factors, uintptr_t out, int out_element, bool accumulate, double scale) {
    const CpuKernels &kernels = cpu_kernels();
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    return kernels.clipped_sum(rows_at(data, element, batch, width, stride, mask), at<float>(factors), at<void>(out),
                               Element(out_element), accumulate, scale);
  });
  m.def("noise_cpu", [](uintptr_t out, uintptr_t base, int base_element, int64_t count, double sigma, const py::bytes &key,
                        uint64_t step, uint64_t offset) {
    const CpuKernels &kernels = cpu_kernels();
    const NoiseKey words = key_from(key);
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    kernels.noise(at<float>(out), at<void>(base), Element(base_element), count, sigma, words, step, offset);
  });
  m.def("discrete_gaussian_cpu", [](uintptr_t out, int64_t count, double sigma, const py::bytes &key, uint64_t step,
                                    uint64_t offset, bool accumulate) {
    const CpuKernels &kernels = cpu_kernels();
    const NoiseKey words = key_from(key);
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    kernels.discrete_gaussian(at<int64_t>(out), count, sigma, words, step, offset, accumulate);
  });
  m.def("sgd_update_cpu", [](uintptr_t param, int element, int64_t count, uintptr_t momentum_buffer, const py::tuple &mean,
                             float rate, float momentum, float dampened, float weight_decay, bool nesterov, bool first) {
    const CpuKernels &kernels = cpu_kernels();
    const NoisyMean noisy = mean_from(mean);
    const SgdStep how = {rate, momentum, dampened, weight_decay, nesterov, first};
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    return kernels.sgd_update(noisy, how, {at<void>(param), Element(element), count}, at<float>(momentum_buffer));
  });
  m.def("adam_update_cpu", [](uintptr_t param, int element, int64_t count, uintptr_t exp_avg, uintptr_t exp_avg_sq,
                              const py::tuple &mean, float rate, float first_weight, float second_decay, float second_weight,
                              float correction, float root_correction, float eps, float weight_decay, float shrink,
                              float noise_variance, float floor) {
    const CpuKernels &kernels = cpu_kernels();
    const NoisyMean noisy = mean_from(mean);
    const AdamStep how = {rate, first_weight, second_decay, second_weight, correction,     root_correction,
                          eps,  weight_decay, shrink,       noise_variance, floor};
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    return kernels.adam_update(noisy, how, {at<void>(param), Element(element), count}, at<float>(exp_avg), at<float>(exp_avg_sq));
  });
  m.def("quick_normals_cpu", [](uintptr_t radius, uintptr_t angle, int64_t count, uintptr_t first, uintptr_t second) {
    cpu_kernels().quick_normals(at<uint64_t>(radius), at<uint64_t>(angle), count, at<double>(first), at<double>(second));
  });
}

void bind_embeddings_cpu(py::module_ &m) {
  m.def("embedding_sqnorms_cpu", [](const LookupArguments &lookups, uintptr_t sqnorms, bool accumulate) {
    const CpuKernels &kernels = cpu_kernels();
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    kernels.embedding_sqnorms(lookups_at(lookups), at<double>(sqnorms), accumulate);
  });
  m.def("clipped_embedding_sum_cpu", [](const LookupArguments &lookups, uintptr_t factors, int64_t from, int64_t to,
                                        uintptr_t out, int out_element, double scale) {
    const CpuKernels &kernels = cpu_kernels();
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    return kernels.clipped_embedding_sum(lookups_at(lookups), at<float>(factors), from, to, at<void>(out), Element(out_element),
                                         scale);
  });
  m.def("tied_cross_cpu", [](const LookupArguments &lookups, uintptr_t left, int left_element, int64_t p, int64_t left_sample,
                             int64_t left_step, uintptr_t right, int right_element, int64_t d, int64_t right_sample,
                             int64_t right_step, int64_t batch, int64_t steps, uintptr_t crosses) {
    const CpuKernels &kernels = cpu_kernels();
    const Products touched = products_at(left, left_element, p, left_sample, left_step, right, right_element, d, right_sample,
                                         right_step, batch, steps, 0);
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    const std::unique_ptr<float[]> workspace(new float[size_t(tied_workspace(steps, d))]);
    kernels.tied_cross(lookups_at(lookups), touched, at<double>(crosses), workspace.get());
  });
}

void bind_head_cpu(py::module_ &m) {
  m.def("head_losses_cpu", [](uintptr_t logits, int64_t rows, int64_t columns, int64_t stride, uintptr_t labels, double scale,
                              double cap, uintptr_t losses, uintptr_t stats, bool want_gradient) {
    const CpuKernels &kernels = cpu_kernels();
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    kernels.head_losses(tile_at(logits, rows, columns, stride, labels, scale, cap), at<double>(losses), at<double>(stats),
                        want_gradient);
  });
  m.def("head_gradient_cpu", [](uintptr_t logits, int64_t rows, int64_t columns, int64_t stride, uintptr_t labels, double scale,
                                double cap, uintptr_t stats, int64_t start) {
    const CpuKernels &kernels = cpu_kernels();
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    kernels.head_gradient(tile_at(logits, rows, columns, stride, labels, scale, cap), at<double>(stats), start);
  });
}

void bind_products_cpu(py::module_ &m) {
  m.def("product_sqnorms_cpu", [](uintptr_t left, int left_element, int64_t p, int64_t left_sample, int64_t left_step,
                                  uintptr_t right, int right_element, int64_t d, int64_t right_sample, int64_t right_step,
                                  int64_t batch, int64_t steps, uintptr_t mask, bool gram, uintptr_t sqnorms, bool accumulate) {
    const CpuKernels &kernels = cpu_kernels();
    const Products products = products_at(left, left_element, p, left_sample, left_step, right, right_element, d, right_sample,
                                          right_step, batch, steps, mask);
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    if (gram) {
      kernels.product_sqnorms_gram(products, at<double>(sqnorms), accumulate);
    } else {
      const std::unique_ptr<float[]> workspace(new float[kProductWorkspace]);
      kernels.product_sqnorms_tiles(products, at<double>(sqnorms), accumulate, workspace.get());
    }
  });
  m.def("clipped_product_sum_cpu", [](uintptr_t left, int left_element, int64_t p, int64_t left_sample, int64_t left_step,
                                      uintptr_t right, int right_element, int64_t d, int64_t right_sample, int64_t right_step,
                                      int64_t batch, int64_t steps, uintptr_t mask, uintptr_t factors, uintptr_t out,
                                      int out_element, int64_t out_stride, double scale) {
    const CpuKernels &kernels = cpu_kernels();
    const Products products = products_at(left, left_element, p, left_sample, left_step, right, right_element, d, right_sample,
                                          right_step, batch, steps, mask);
    py::gil_scoped_release unlocked;
    const DefaultFloats floats;
    const std::unique_ptr<float[]> workspace(new float[kProductWorkspace]);
    return kernels.clipped_product_sum(products, at<float>(factors), at<void>(out), Element(out_element), out_stride, scale,
                                       workspace.get());
  });
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "privkt's native kernels: raw pointers in, no torch inside";
  m.def("chacha20_block", [](const py::bytes &key, uint32_t counter, const std::string &nonce) {
    if (nonce.size() != 12) throw std::invalid_argument("chacha20_block: nonce must have 12 bytes, got " + std::to_string(nonce.size()));
    uint32_t input[4] = {counter, 0, 0, 0}, words[16];
    for (size_t i = 0; i < 12; ++i) input[1 + i / 4] |= uint32_t(uint8_t(nonce[i])) << (8 * (i % 4));
    chacha20_block(key_from(key).word, input, words);
    std::string out;
    for (uint32_t word : words) {
      for (int byte = 0; byte < 4; ++byte) out.push_back(char(word >> (8 * byte)));
    }
    return py::bytes(out);
  });
  // Both paths of the noise for chosen uniforms, so that tests can measure the errors that the bounds assume.
  m.def("fast_normals", [](uint64_t radius, uint64_t angle) {
    const FastPair pair = fast_normals(radius, angle);
    return py::make_tuple(pair.first, pair.second, pair.in_range);
  });
  m.def("exact_normals", [](uint64_t radius, uint64_t angle, uint64_t radius_low, uint64_t angle_low) {
    const dd one = exact_normal({radius, angle}, {radius_low, angle_low}, 0);
    const dd two = exact_normal({radius, angle}, {radius_low, angle_low}, 1);
    return py::make_tuple(one.hi, one.lo, two.hi, two.lo);
  });
  m.attr("FAST_ERROR") = py::make_tuple(kFastError, kFastFloor);
  m.attr("QUICK_ERROR") = py::make_tuple(kQuickError, kQuickFloor);
  m.attr("GAUSSIAN_TV") = kUndecided;
  m.def("cpu_isa", [] { return std::string(cpu_kernels().isa); });
  m.attr("BUILD") = py::dict(py::arg("version") = PRIVKT_VERSION, py::arg("compiler") = PRIVKT_COMPILER,
                             py::arg("build_type") = PRIVKT_BUILD_TYPE, py::arg("processor") = PRIVKT_PROCESSOR,
                             py::arg("cpu_isas") = built_cpu_isas(), py::arg("cuda") = bool(PRIVKT_CUDA_BUILT),
                             py::arg("cuda_asked") = PRIVKT_CUDA_ASKED, py::arg("cuda_version") = PRIVKT_CUDA_VERSION,
                             py::arg("cuda_architectures") = PRIVKT_CUDA_ARCHS, py::arg("cuda_reason") = PRIVKT_CUDA_REASON);
  bind_cpu(m);
  bind_embeddings_cpu(m);
  bind_head_cpu(m);
  bind_products_cpu(m);
  bind_tokens_cpu(m);
  bind_blocks(m);
  bind_token_blocks(m);
}
