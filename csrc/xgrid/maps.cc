#include "xgrid/maps.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>

namespace twohot::xgrid {
namespace {

constexpr std::array door_colours{Colour::red,    Colour::green,  Colour::blue,
                                  Colour::purple, Colour::yellow, Colour::grey};
constexpr std::uint8_t no_room = 255;

// Rows and columns of rooms.
std::array<int, 2> shape(int rooms) {
  switch (rooms) {
    case 1: return {1, 1};
    case 2: return {1, 2};
    case 4: return {2, 2};
    case 6: return {2, 3};
    case 9: return {3, 3};
    default: throw std::invalid_argument("expected 1, 2, 4, 6 or 9 rooms, got " + std::to_string(rooms));
  }
}

// The walls that divide a side of `cells` into `rooms`, both ends included.
std::vector<int> walls(int cells, int rooms) {
  std::vector<int> places;
  for (int i = 0; i <= rooms; ++i) places.push_back(i * (cells - 1) / rooms);
  return places;
}

}  // namespace

Map::Map(const MapSettings& settings, int margin) {
  const auto [height, width] = std::array{settings.height, settings.width};
  if (std::min(height, width) < min_side || std::max(height, width) > max_side) {
    throw std::invalid_argument("expected a grid of " + std::to_string(min_side) + " to " + std::to_string(max_side) +
                                " cells on a side, got " + std::to_string(height) + " x " + std::to_string(width));
  }
  const auto [rows, columns] = shape(settings.rooms);
  const std::vector<int> across = walls(height, rows);
  const std::vector<int> down = walls(width, columns);
  const auto narrow = [](const std::vector<int>& places) {
    return std::ranges::adjacent_find(places, [](int a, int b) { return b - a < 3; }) != places.end();
  };
  if (narrow(across) || narrow(down)) {
    throw std::invalid_argument("expected rooms of 2 x 2 cells at least, got " + std::to_string(settings.rooms) +
                                " rooms in " + std::to_string(height) + " x " + std::to_string(width) +
                                ": make the grid larger");
  }
  if (settings.locked && settings.rooms == 1) throw std::invalid_argument("expected 2 rooms or more for a locked door");
  stride_ = width + 2 * margin;
  origin_ = margin * stride_ + margin;
  const auto at = [&](int y, int x) { return origin_ + y * stride_ + x; };
  const auto size = static_cast<std::size_t>(stride_ * (height + 2 * margin));
  template_.assign(size, nothing);
  room_.assign(size, no_room);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const auto cell = static_cast<std::size_t>(at(y, x));
      const bool wall = std::ranges::count(across, y) > 0 || std::ranges::count(down, x) > 0;
      template_[cell] = wall ? wall_tile : floor_tile;
      if (wall) continue;
      floor_.push_back(static_cast<std::uint16_t>(cell));
      const auto row = std::ranges::upper_bound(across, y) - across.begin() - 1;
      const auto column = std::ranges::upper_bound(down, x) - down.begin() - 1;
      room_[cell] = static_cast<std::uint8_t>(row * columns + column);
    }
  }
  for (int row = 0; row < rows; ++row) {
    for (int column = 0; column < columns; ++column) {
      const int top = across[row] + 1, left = down[column] + 1;
      const int bottom = across[row + 1], right = down[column + 1];
      if (column + 1 < columns) doors_.push_back({at(top, right), stride_, bottom - top});
      if (row + 1 < rows) doors_.push_back({at(bottom, left), 1, right - left});
    }
  }
}

void Map::draw(Tile* cells, RandomStream& random) const noexcept {
  std::memcpy(cells, template_.data(), template_.size() * sizeof(Tile));
  for (const Door& door : doors_) {
    const Colour colour = door_colours[random.below(door_colours.size())];
    const auto place = static_cast<int>(random.below(static_cast<std::uint64_t>(door.count)));
    cells[door.first + door.step * place] = make_tile(Shape::door_closed, colour);
  }
}

int Map::free_cell(const Tile* cells, RandomStream& random) const noexcept {
  int cell;
  do {
    cell = floor_[random.below(floor_.size())];
  } while (cells[cell] != floor_tile);
  return cell;
}

bool Map::lock(Tile* cells, int agent, RandomStream& random) const noexcept {
  const auto beside = [&](int cell) {
    return cell != agent && cells[cell] == floor_tile &&
           room_[static_cast<std::size_t>(cell)] == room_[static_cast<std::size_t>(agent)];
  };
  const auto count = std::ranges::count_if(floor_, beside);
  if (count == 0) return false;
  const Door& door = doors_[random.below(doors_.size())];
  int at = door.first;
  for (int i = 1; i < door.count && shape_of(cells[at]) != Shape::door_closed; ++i) at += door.step;
  const Colour colour = colour_of(cells[at]);
  auto left = random.below(static_cast<std::uint64_t>(count));
  const auto place = std::ranges::find_if(floor_, [&](int cell) { return beside(cell) && left-- == 0; });
  cells[*place] = make_tile(Shape::key, colour);
  cells[at] = make_tile(Shape::door_locked, colour);
  return true;
}

}  // namespace twohot::xgrid
