// Tiles of the grid world: a shape and a colour, with the numbers that XLand-MiniGrid gives them.
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>

namespace twohot::xgrid {

// The shape in the low byte, the colour in the high one: in memory, the two bytes of a cell that an observation shows.
using Tile = std::uint16_t;
static_assert(std::endian::native == std::endian::little, "a tile has to be the two bytes that observations show");

enum class Shape : std::uint8_t {
  empty,  // outside of the grid, and what an empty pocket holds
  floor,
  wall,
  ball,
  square,
  pyramid,
  goal,
  key,
  door_locked,
  door_closed,
  door_open,
  hex,
  star,
};
constexpr int num_shapes = 13;

enum class Colour : std::uint8_t {
  empty,
  red,
  green,
  blue,
  purple,
  yellow,
  grey,
  black,
  orange,
  white,
  brown,
  pink,
};
constexpr int num_colours = 12;

constexpr Tile make_tile(Shape shape, Colour colour) noexcept {
  return static_cast<Tile>(static_cast<unsigned>(shape) | static_cast<unsigned>(colour) << 8);
}
constexpr Shape shape_of(Tile tile) noexcept { return static_cast<Shape>(tile & 0xff); }
constexpr Colour colour_of(Tile tile) noexcept { return static_cast<Colour>(tile >> 8); }

constexpr Tile nothing = make_tile(Shape::empty, Colour::empty);
constexpr Tile floor_tile = make_tile(Shape::floor, Colour::black);
constexpr Tile wall_tile = make_tile(Shape::wall, Colour::grey);

// A set of shapes, a bit each.
class Shapes {
 public:
  constexpr Shapes(std::initializer_list<Shape> shapes) noexcept {
    for (const Shape shape : shapes) bits_ |= 1u << static_cast<unsigned>(shape);
  }
  // Whether the tile's shape is one of these.
  constexpr bool has(Tile tile) const noexcept { return (bits_ >> (tile & 31) & 1u) != 0; }

 private:
  unsigned bits_ = 0;
};

constexpr Shapes walkable{Shape::floor, Shape::goal, Shape::door_open};
constexpr Shapes pickable{Shape::ball, Shape::square, Shape::pyramid, Shape::key, Shape::hex, Shape::star};

}  // namespace twohot::xgrid
