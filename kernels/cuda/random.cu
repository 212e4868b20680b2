// Counter-based random numbers, Philox 4x32-10, and dropout: the numbers of the CPU's `random.rs`, which has the paper.
//
// Floor: the bytes, read once and written once; a value takes some 25 instructions, a quarter of those of a block of
// four numbers.
#include "share.cuh"

struct Numbers {
  u32 at[4];
};

// The four numbers at `counter`, of the family `key`.
DEVICE Numbers philox(Numbers counter, u32 key0, u32 key1) {
  u32(&c)[4] = counter.at;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u64 a = (u64)c[0] * 0xd2511f53u, b = (u64)c[2] * 0xcd9e8d57u;
    const u32 first = (u32)(b >> 32) ^ c[1] ^ key0, third = (u32)(a >> 32) ^ c[3] ^ key1;
    c[0] = first, c[1] = (u32)b, c[2] = third, c[3] = (u32)a;
    key0 += 0x9e3779b9u, key1 += 0xbb67ae85u;
  }
  return counter;
}

// y = x * m or, accumulating, y += x * m: m is 0 where the number of a value is below `threshold`, else `factor`. The
// value in column c has word c % 4 of the block `[row low, row high, c / 4, 0]` of the family `key[0], key[1]`; rows
// count from `first_row`, or are those named in `rows` unless that is null. `x` may be `y`.
KERNEL(256)
dropout(const u32* key, u64 first_row, const u32* rows, u32 threshold, float factor, u32 accumulate, Mat x, Mat y) {
  const Share share = share_of_thread(y);
  if (is_empty(share)) return;
  float values[8];
  load_share(x, share, values);
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
    const Columns& at = share.of[half];
    if (at.count == 0) break;
    const u64 row = rows ? rows[at.row] : first_row + at.row;
    const Numbers numbers = philox({(u32)row, (u32)(row >> 32), at.first / 4, 0}, key[0], key[1]);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      float& value = values[4 * half + i];
      value = __fmul_rn(value, numbers.at[i] < threshold ? 0.0f : factor);
    }
  }
  put_share(y, share, accumulate, values);
}
