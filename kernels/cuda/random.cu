// Counter-based random numbers, Philox 4x32-10, dropout, and which experts a gate may weigh: the numbers of the CPU's
// `random.rs`, which has the paper.
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

// Whether a logit is among the `best` of a gate's, of equal ones the first: NaN always is.
DEVICE bool is_best(const Mat& logits, u32 row, u32 first, u32 experts, u32 best, u32 expert) {
  const float own = load_value(logits, row, first + expert);
  u32 before = 0;
  for (u32 e = 0; best < experts && e < experts; e++) {
    const float other = load_value(logits, row, first + e);
    before += other > own || (other == own && e < expert);
  }
  return before < best;
}

// The logits of gates over `experts` experts each, with minus infinity where an expert is left out: all but the `best` of a
// gate, and of these those whose number, as of `dropout`, is below `threshold`, unless that is all of them. A logit that is
// not finite stays, to be found. Rows count from 0 or are those named. A thread takes a gate of a row.
KERNEL(256)
select_experts(const u32* key, const u32* rows, u32 threshold, u32 experts, u32 best, Mat logits, Mat selected) {
  const u32 gates = logits.cols / experts, index = blockIdx.x * 256 + threadIdx.x;
  const u32 row = index / gates, first = index % gates * experts;
  if (row >= rows_of(logits)) return;
  const u32 name = rows ? rows[row] : row;
  Numbers numbers = {};
  u32 block = ~0u;
  const auto is_left = [&](u32 expert) {
    const u32 col = first + expert;
    if (threshold == 0 || !isfinite(load_value(logits, row, col))) return true;
    if (block != col / 4) block = col / 4, numbers = philox({name, 0, block, 0}, key[0], key[1]);
    // Not by an index: registers have none.
    const u32 low = col & 1 ? numbers.at[1] : numbers.at[0], high = col & 1 ? numbers.at[3] : numbers.at[2];
    return (col & 2 ? high : low) >= threshold;
  };
  bool is_any_left = false;
  for (u32 e = 0; e < experts; e++) {
    is_any_left = is_any_left || (is_best(logits, row, first, experts, best, e) && is_left(e));
  }
  for (u32 e = 0; e < experts; e++) {
    const bool stays = is_best(logits, row, first, experts, best, e) && (!is_any_left || is_left(e));
    store_value(selected, row, first + e, stays ? load_value(logits, row, first + e) : MINUS_INFINITY);
  }
}
