#define TWOHOT_CAPABILITY avx2
#include "ops/two_hot_rows.h"

namespace twohot::ops {

void forward_avx2(const Rows& rows, const Forward& out, std::int64_t begin, std::int64_t end) noexcept {
  avx2::forward_rows(rows, out, begin, end);
}

void backward_avx2(const Rows& rows, const Backward& pass, std::int64_t begin, std::int64_t end) noexcept {
  avx2::backward_rows(rows, pass, begin, end);
}

}  // namespace twohot::ops
