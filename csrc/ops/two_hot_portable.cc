#define TWOHOT_CAPABILITY portable
#include "ops/two_hot_rows.h"

namespace twohot::ops {

void forward_portable(const Rows& rows, const Forward& out, std::int64_t begin, std::int64_t end) noexcept {
  portable::forward_rows(rows, out, begin, end);
}

void backward_portable(const Rows& rows, const Backward& pass, std::int64_t begin, std::int64_t end) noexcept {
  portable::backward_rows(rows, pass, begin, end);
}

}  // namespace twohot::ops
