// Draws an index in proportion to its weight, with weights that change.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <vector>

namespace twohot {

// A binary tree of sums over weights that are finite and at least 0. Not thread-safe.
class SumTree {
 public:
  // Weights of 0 for at least `size` indices; `size` is rounded up to a power of two.
  explicit SumTree(std::size_t size) : size_(std::bit_ceil(std::max<std::size_t>(size, 1))), nodes_(2 * size_, 0.0) {}

  std::size_t size() const noexcept { return size_; }
  double total() const noexcept { return nodes_[1]; }
  double operator[](std::size_t index) const noexcept { return nodes_[size_ + index]; }

  // O(log size).
  void set(std::size_t index, double weight) noexcept {
    std::size_t node = size_ + index;
    nodes_[node] = weight;
    for (node /= 2; node != 0; node /= 2) nodes_[node] = nodes_[2 * node] + nodes_[2 * node + 1];
  }

  // The index at which the running sum of the weights first exceeds `target`, 0 <= target < total(). Never one of
  // weight 0, whatever the sums round to. O(log size).
  std::size_t find(double target) const noexcept {
    std::size_t node = 1;
    while (node < size_) {
      const double left = nodes_[2 * node];
      const bool right = (target >= left && nodes_[2 * node + 1] > 0) || left <= 0;
      if (right) target -= left;
      node = 2 * node + (right ? 1 : 0);
    }
    return node - size_;
  }

 private:
  std::size_t size_;
  std::vector<double> nodes_;
};

}  // namespace twohot
