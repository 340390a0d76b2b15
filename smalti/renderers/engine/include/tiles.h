// Words shared by binning and the compositors: tiles, chunks of tiles, and where a primitive's gradient is summed.
#pragma once

namespace smalti {

constexpr int kTile = 16;  // pixels per side
constexpr int kTilePixels = kTile * kTile;
// Gradients are summed first within a chunk (up to kChunkTiles neighbouring tiles of one row, done by one thread in order) and
// then over chunks in index order: the same bits for any number of threads.
constexpr int kChunkTiles = 16;

// Rectangle of tiles of a primitive and the first of its slots; slots run over tile rows, then over chunks of a row.
struct Footprint {
    int slot;
    short x0, x1, y0, y1;  // half open; x0 == x1: not drawn
};

#ifndef SMALTI_CUDA
inline int chunks_across(const Footprint& f) { return (f.x1 - 1) / kChunkTiles - f.x0 / kChunkTiles + 1; }
inline int slot_count(const Footprint& f) { return f.x0 == f.x1 ? 0 : (f.y1 - f.y0) * chunks_across(f); }
inline int slot_of(const Footprint& f, int tile_x, int tile_y) {
    return f.slot + (tile_y - f.y0) * chunks_across(f) + tile_x / kChunkTiles - f.x0 / kChunkTiles;
}
#endif

}  // namespace smalti
