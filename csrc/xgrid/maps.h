// Maps: rooms in rows and columns, of equal size where the sides divide, a door in each wall that two share.
#pragma once

#include <cstdint>
#include <vector>

#include "core/random.h"
#include "xgrid/tiles.h"

namespace twohot::xgrid {

constexpr int min_side = 5;
constexpr int max_side = 64;

struct MapSettings {
  int height = 9;
  int width = 9;
  int rooms = 1;        // 1, 2, 4, 6 or 9: 1 x 1, 1 x 2, 2 x 2, 2 x 3 and 3 x 3 of them
  bool locked = false;  // one of the doors is locked, and the room where the agent begins has its key
};

// Draws maps into a grid with a margin of `margin` empty cells on every side, in rows that are `stride` apart.
// Immutable.
class Map {
 public:
  // Throws std::invalid_argument for sides outside min_side to max_side, another number of rooms, rooms that are
  // smaller than 2 x 2, or a lock without a door.
  Map(const MapSettings& settings, int margin);

  int stride() const noexcept { return stride_; }
  int cells() const noexcept { return static_cast<int>(template_.size()); }
  int origin() const noexcept { return origin_; }  // the index of (0, 0)
  // Cells of floor before anything is placed.
  int free_cells() const noexcept { return static_cast<int>(floor_.size()); }

  // Walls, doors of a random colour each, floor.
  void draw(Tile* cells, RandomStream& random) const noexcept;

  // A free cell, drawn uniformly. There has to be one.
  int free_cell(const Tile* cells, RandomStream& random) const noexcept;

  // Locks a door and places its key in the room of the cell `agent`. False, and nothing is done, if no other cell of
  // that room is free.
  bool lock(Tile* cells, int agent, RandomStream& random) const noexcept;

 private:
  struct Door {
    int first;  // where it may stand: cells from `first` on, `step` apart
    int step;
    int count;
  };

  int stride_;
  int origin_;
  std::vector<Tile> template_;
  std::vector<std::uint16_t> floor_;
  std::vector<std::uint8_t> room_;  // of each cell, 255 where it is none's
  std::vector<Door> doors_;
};

}  // namespace twohot::xgrid
