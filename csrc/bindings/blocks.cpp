// Python's face of the kernels that run in blocks of threads: on a GPU, and played on the CPU for tests.
#include "arguments.h"

namespace privkt {

void check_launch(int code, const char *kernel) {
#if defined(PRIVKT_HAS_CUDA)
  if (code != 0) throw std::runtime_error(std::string(kernel) + ": CUDA reported: " + cuda_error_text(code));
#else
  static_cast<void>(code);
  static_cast<void>(kernel);
#endif
}

namespace {

// The same arguments as for the CPU, then a workspace where one is needed, and the stream.
void bind_all(py::module_ &m, const std::string &suffix, const BlockKernels &kernels) {
  const BlockKernels *k = &kernels;
  m.def(("row_sqnorms" + suffix).c_str(), [k](uintptr_t data, int element, int64_t batch, int64_t width, int64_t stride,
                                              uintptr_t mask, uintptr_t sqnorms, bool accumulate, uintptr_t stream) {
    check_launch(k->row_sqnorms(rows_at(data, element, batch, width, stride, mask), at<double>(sqnorms), accumulate,
                         at<void>(stream)), "row_sqnorms");
  });
  m.def(("clip_factors" + suffix).c_str(), [k](uintptr_t sqnorms, uintptr_t mask, int64_t batch, double max_norm, double width,
                                               double slack, uintptr_t factors, uintptr_t finite, uintptr_t stream) {
    check_launch(k->clip_factors(at<double>(sqnorms), at<uint8_t>(mask), batch, max_norm, width, slack, at<float>(factors),
                          at<uint8_t>(finite), at<void>(stream)), "clip_factors");
  });
  m.def(("clipped_sum" + suffix).c_str(), [k](uintptr_t data, int element, int64_t batch, int64_t width, int64_t stride,
                                              uintptr_t mask, uintptr_t factors, uintptr_t out, int out_element, bool accumulate,
                                              double scale, uintptr_t stream) {
    check_launch(k->clipped_sum(rows_at(data, element, batch, width, stride, mask), at<float>(factors), at<void>(out),
                         Element(out_element), accumulate, scale, at<void>(stream)), "clipped_sum");
    return true;  // what did not fit shows in `out`, without waiting for the device
  });
  m.def(("noise" + suffix).c_str(), [k](uintptr_t out, uintptr_t base, int base_element, int64_t count, double sigma,
                                        const py::bytes &key, uint64_t step, uint64_t offset, uintptr_t stream) {
    check_launch(k->noise(at<float>(out), at<void>(base), Element(base_element), count, sigma, key_from(key), step, offset,
                   at<void>(stream)), "gaussian_noise");
  });
  m.def(("discrete_gaussian" + suffix).c_str(), [k](uintptr_t out, int64_t count, double sigma, const py::bytes &key,
                                                    uint64_t step, uint64_t offset, bool accumulate, uintptr_t stream) {
    check_launch(k->discrete_gaussian(at<int64_t>(out), count, sigma, key_from(key), step, offset, accumulate, at<void>(stream)),
          "discrete_gaussian");
  });
  m.def(("sgd_update" + suffix).c_str(), [k](uintptr_t param, int element, int64_t count, uintptr_t momentum_buffer,
                                             const py::tuple &mean, float rate, float momentum, float dampened,
                                             float weight_decay, bool nesterov, bool first, uintptr_t stream) {
    const SgdStep how = {rate, momentum, dampened, weight_decay, nesterov, first};
    check_launch(k->sgd_update(mean_from(mean), how, {at<void>(param), Element(element), count}, at<float>(momentum_buffer),
                        at<void>(stream)), "sgd_update_");
    return true;
  });
  m.def(("adam_update" + suffix).c_str(), [k](uintptr_t param, int element, int64_t count, uintptr_t exp_avg,
                                              uintptr_t exp_avg_sq, const py::tuple &mean, float rate, float first_weight,
                                              float second_decay, float second_weight, float correction, float root_correction,
                                              float eps, float weight_decay, float shrink, float noise_variance, float floor,
                                              uintptr_t stream) {
    const AdamStep how = {rate, first_weight, second_decay, second_weight, correction,     root_correction,
                          eps,  weight_decay, shrink,       noise_variance, floor};
    check_launch(k->adam_update(mean_from(mean), how, {at<void>(param), Element(element), count}, at<float>(exp_avg),
                         at<float>(exp_avg_sq), at<void>(stream)), "adam_update_");
    return true;
  });
  m.def(("product_sqnorms" + suffix).c_str(),
        [k](uintptr_t left, int left_element, int64_t p, int64_t left_sample, int64_t left_step, uintptr_t right,
            int right_element, int64_t d, int64_t right_sample, int64_t right_step, int64_t batch, int64_t steps, uintptr_t mask,
            bool gram, uintptr_t sqnorms, bool accumulate, uintptr_t workspace, uintptr_t stream) {
    const Products products = products_at(left, left_element, p, left_sample, left_step, right, right_element, d, right_sample,
                                          right_step, batch, steps, mask);
    const auto kernel = gram ? k->product_sqnorms_gram : k->product_sqnorms_tiles;
    check_launch(kernel(products, at<double>(sqnorms), accumulate, at<double>(workspace), at<void>(stream)), "product_sqnorms");
  });
  m.def(("clipped_product_sum" + suffix).c_str(),
        [k](uintptr_t left, int left_element, int64_t p, int64_t left_sample, int64_t left_step, uintptr_t right,
            int right_element, int64_t d, int64_t right_sample, int64_t right_step, int64_t batch, int64_t steps, uintptr_t mask,
            uintptr_t factors, uintptr_t out, int out_element, int64_t out_stride, double scale, uintptr_t stream) {
    const Products products = products_at(left, left_element, p, left_sample, left_step, right, right_element, d, right_sample,
                                          right_step, batch, steps, mask);
    check_launch(k->clipped_product_sum(products, at<float>(factors), at<void>(out), Element(out_element), out_stride, scale,
                                 at<void>(stream)), "clipped_product_sum");
    return true;
  });
  m.def(("embedding_sqnorms" + suffix).c_str(),
        [k](const LookupArguments &lookups, uintptr_t sqnorms, bool accumulate, uintptr_t workspace, uintptr_t stream) {
    check_launch(k->embedding_sqnorms(lookups_at(lookups), at<double>(sqnorms), accumulate, at<double>(workspace), at<void>(stream)),
          "embedding_sqnorms");
  });
  // The whole of the sorted ids; from and to are the CPU's.
  m.def(("clipped_embedding_sum" + suffix).c_str(),
        [k](const LookupArguments &lookups, uintptr_t factors, int64_t, int64_t, uintptr_t out, int out_element, double scale,
            uintptr_t stream) {
    check_launch(k->clipped_embedding_sum(lookups_at(lookups), at<float>(factors), at<void>(out), Element(out_element), scale,
                                   at<void>(stream)), "clipped_embedding_sum");
    return true;
  });
  m.def(("tied_cross" + suffix).c_str(),
        [k](const LookupArguments &lookups, uintptr_t left, int left_element, int64_t p, int64_t left_sample, int64_t left_step,
            uintptr_t right, int right_element, int64_t d, int64_t right_sample, int64_t right_step, int64_t batch,
            int64_t steps, uintptr_t crosses, uintptr_t workspace, uintptr_t stream) {
    const Products touched = products_at(left, left_element, p, left_sample, left_step, right, right_element, d, right_sample,
                                         right_step, batch, steps, 0);
    check_launch(k->tied_cross(lookups_at(lookups), touched, at<double>(crosses), at<double>(workspace), at<void>(stream)),
          "tied_cross");
  });
}

#if defined(PRIVKT_HAS_CUDA)
void bind_cuda(py::module_ &m) {
  m.def("head_losses_cuda", [](uintptr_t logits, int64_t rows, int64_t columns, int64_t stride, uintptr_t labels, double scale,
                               double cap, uintptr_t losses, uintptr_t stats, bool want_gradient, uintptr_t stream) {
    check_launch(head_losses_cuda(tile_at(logits, rows, columns, stride, labels, scale, cap), at<double>(losses), at<double>(stats),
                           want_gradient, at<void>(stream)), "head_losses");
  });
  m.def("head_gradient_cuda", [](uintptr_t logits, int64_t rows, int64_t columns, int64_t stride, uintptr_t labels, double scale,
                                 double cap, uintptr_t stats, int64_t start, uintptr_t stream) {
    check_launch(head_gradient_cuda(tile_at(logits, rows, columns, stride, labels, scale, cap), at<double>(stats), start,
                             at<void>(stream)), "head_gradient");
  });
}
#endif

}  // namespace

void bind_blocks(py::module_ &m) {
  m.def("product_workspace", &product_workspace);
  m.def("embedding_workspace", &embedding_workspace);
  m.def("play_backwards", &play_backwards);
  bind_all(m, "_blocks", played_kernels());
#if defined(PRIVKT_HAS_CUDA)
  bind_cuda(m);
  bind_all(m, "_cuda", cuda_kernels());
#endif
}

}  // namespace privkt
