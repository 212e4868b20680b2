// What a thread copies of each tile of an operand of tensor cores: chunks of 16 bytes, some lines apart.
#pragma once

#include "product.cuh"

template <class Tile>
struct TileShare {
  static constexpr bool INNER = Tile::IS_INNER;
  // Chunks of the thread, and from one to the next lines, and bytes in shared memory.
  static constexpr u32 LINES = THREADS / Tile::CHUNKS, APART = LINES * Tile::LINE;
  static constexpr u32 COPIES = Tile::BYTES / 16 / THREADS;

  const unsigned char* data;
  u32 stride;
  // Lines and values of a line that there are from the first chunk on, in the tile that begins at 0.
  u32 lines, run;
  // Of the first chunk in a tile.
  u32 offset;
  bool aligned;

  // Of the tiles that begin at `outer` in the index that the output has too.
  DEVICE TileShare(const Operand& from, u32 outer) : stride(from.stride), aligned(from.aligned) {
    const u32 line = threadIdx.x / Tile::CHUNKS, chunk = threadIdx.x % Tile::CHUNKS;
    const u32 first = line + (INNER ? outer : 0), col = chunk * Tile::CHUNK + (INNER ? 0 : outer);
    data = from.data + ((u64)first * stride + col) * Tile::VALUE;
    lines = from.lines > first ? from.lines - first : 0;
    run = from.run > col ? from.run - col : 0;
    offset = Tile::offset(line, chunk);
  }

  // Where in a tile the chunk number `i` of the thread is.
  DEVICE u32 place(u32 i) const { return offset + i * APART; }

  // Begins to copy the tile that begins at `inner`.
  DEVICE void copy(u32 inner, unsigned char* tile) const {
    const u32 left = INNER ? run : lines, further = left > inner ? left - inner : 0;
    const u32 values = INNER ? further : run, there = INNER ? lines : further;
    const unsigned char* const from = data + (INNER ? inner : (u64)inner * stride) * Tile::VALUE;
    const u64 next = (u64)LINES * stride * Tile::VALUE;
    unsigned char* const to = tile + offset;
    if (!aligned) {
#pragma unroll 1
      for (u32 i = 0; i < COPIES; i++) copy_values(to + i * APART, from + i * next, i * LINES < there ? values : 0);
    } else if (values >= Tile::CHUNK && (COPIES - 1) * LINES < there) {
#pragma unroll
      for (u32 i = 0; i < COPIES; i++) copy_async_16(to + i * APART, from + i * next);
    } else {
#pragma unroll 1
      for (u32 i = 0; i < COPIES; i++) {
        const u32 count = i * LINES < there ? min(values, Tile::CHUNK) : 0;
        copy_async_16(to + i * APART, from + i * next, count * Tile::VALUE);
      }
    }
  }

 private:
  // Copies the first `count` values of a chunk that does not lie as an access needs it, and 0 for the others.
  DEVICE static void copy_values(unsigned char* to, const unsigned char* data, u32 count) {
    u32 words[4] = {};
#pragma unroll
    for (u32 i = 0; i < Tile::CHUNK; i++) {
      if (i >= count) continue;
      if (Tile::VALUE == 4) {
        words[i] = ((const u32*)data)[i];
      } else {
        words[i / 2] |= (u32)((const bf16*)data)[i].bits << i % 2 * 16;
      }
    }
    *(uint4*)to = make_uint4(words[0], words[1], words[2], words[3]);
  }
};
