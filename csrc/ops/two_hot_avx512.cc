#define TWOHOT_CAPABILITY avx512
#include "ops/two_hot_rows.h"

namespace twohot::ops {

void forward_avx512(const Rows& rows, const Forward& out, std::int64_t begin, std::int64_t end) noexcept {
  avx512::forward_rows(rows, out, begin, end);
}

void backward_avx512(const Rows& rows, const Backward& pass, std::int64_t begin, std::int64_t end) noexcept {
  avx512::backward_rows(rows, pass, begin, end);
}

}  // namespace twohot::ops
