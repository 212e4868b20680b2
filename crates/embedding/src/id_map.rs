//! Ids of an open vocabulary to rows of a growing table.
//!
//! Rows are dealt in the order in which ids come, from 1; row 0 is the unknown row. The map is one thread's: with the
//! ids of a batch in the order of its rows, the same data gives the same rows whatever the threads.

use manygate_core::{Error, Result};

/// Slots of a map that holds nothing.
const FIRST_SLOTS: usize = 16;
/// Bytes of the head of [`IdMap::to_bytes`]: most rows, look-ups refused.
const HEAD: usize = 16;

/// One place of the hash table; free where the row is 0, which no id has.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    id: u64,
    row: u32,
}

/// A hash table with open addressing and linear probing; it grows by doubling and never forgets an id.
#[derive(Clone, Debug)]
pub struct IdMap {
    /// A power of two of them, at most half of them taken.
    slots: Vec<Slot>,
    /// Ids that have rows.
    len: usize,
    max_rows: u32,
    refused: u64,
}

impl IdMap {
    /// A map for a table of at most `max_rows` rows, the unknown row included.
    ///
    /// # Errors
    /// [`Error::Graph`] when `max_rows` is 0 or more than `u32::MAX`: a table has an unknown row, and rows are u32.
    pub fn new(max_rows: usize) -> Result<IdMap> {
        let max_rows = u32::try_from(max_rows).ok().filter(|&rows| rows > 0).ok_or_else(|| {
            Error::graph("id map", format!("{max_rows} rows at most; from 1 to {} are possible", u32::MAX))
        })?;
        Ok(IdMap { slots: vec![Slot::default(); FIRST_SLOTS], len: 0, max_rows, refused: 0 })
    }

    /// Ids that have rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no id has a row.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows that the table needs, the unknown row included.
    pub fn rows(&self) -> usize {
        self.len + 1
    }

    /// Most rows.
    pub fn max_rows(&self) -> usize {
        self.max_rows as usize
    }

    /// Look-ups of new ids that came when every row was taken, and went to the unknown row.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The row of `id`; 0 where it has none.
    pub fn row(&self, id: u64) -> u32 {
        self.slots[self.find(id)].row
    }

    /// The row of `id`, the next one where it has none; 0 where all are taken.
    pub fn row_or_insert(&mut self, id: u64) -> u32 {
        let at = self.find(id);
        if self.slots[at].row > 0 {
            return self.slots[at].row;
        }
        // `max_rows` is a u32 above 0, and `len` stays below it.
        let row = self.len as u32 + 1;
        if row == self.max_rows {
            self.refused += 1;
            return 0;
        }
        self.slots[at] = Slot { id, row };
        self.len += 1;
        if 2 * self.len > self.slots.len() {
            self.double();
        }
        row
    }

    /// The rows of a batch of ids, new ones where they have none, to `rows`; the ids that are new to `new`, in the order
    /// of their rows, for [`Table::grow`](crate::Table::grow).
    ///
    /// # Panics
    /// When there are not as many rows as ids.
    pub fn rows_of(&mut self, ids: &[u64], rows: &mut [u32], new: &mut Vec<u64>) {
        assert_eq!(ids.len(), rows.len(), "one row an id");
        new.clear();
        for (&id, row) in ids.iter().zip(rows) {
            let before = self.len;
            *row = self.row_or_insert(id);
            if self.len > before {
                new.push(id);
            }
        }
    }

    /// Every id that has a row, in the order of rows: the first has row 1.
    pub fn ids(&self) -> Vec<u64> {
        let mut ids = vec![0; self.len];
        for slot in self.slots.iter().filter(|slot| slot.row > 0) {
            ids[slot.row as usize - 1] = slot.id;
        }
        ids
    }

    /// The map as bytes, little-endian: most rows and look-ups refused, then the ids in the order of their rows, 8 bytes
    /// each. Equal maps are equal bytes, whatever the order of look-ups.
    pub fn to_bytes(&self) -> Vec<u8> {
        let head = [u64::from(self.max_rows), self.refused];
        head.into_iter().chain(self.ids()).flat_map(u64::to_le_bytes).collect()
    }

    /// What [`to_bytes`](IdMap::to_bytes) gave. The file around it has the checksum.
    ///
    /// # Errors
    /// [`Error::Graph`] when the bytes are not those of a map: cut short, more ids than rows, or an id twice.
    pub fn from_bytes(bytes: &[u8]) -> Result<IdMap> {
        let damaged = |message: String| Error::graph("id map", format!("is damaged: {message}"));
        if bytes.len() < HEAD || !bytes.len().is_multiple_of(8) {
            return Err(damaged(format!("{} bytes are not a head of {HEAD} and ids of 8", bytes.len())));
        }
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let (max_rows, refused) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        let mut map = IdMap::new(usize::try_from(max_rows).unwrap_or(usize::MAX))?;
        for (id, row) in words.zip(1..) {
            if row >= max_rows {
                return Err(damaged(format!("it has an id for row {row}, of {max_rows}")));
            }
            if u64::from(map.row_or_insert(id)) != row {
                return Err(damaged(format!("id {id} has two rows, of which one is {row}")));
            }
        }
        map.refused = refused;
        Ok(map)
    }

    /// The slot of `id`, or the free one where it would be. Half of the slots are free, so one is found.
    fn find(&self, id: u64) -> usize {
        let last = self.slots.len() - 1;
        let mut at = spread(id) as usize & last;
        while self.slots[at].row > 0 && self.slots[at].id != id {
            at = (at + 1) & last;
        }
        at
    }

    fn double(&mut self) {
        let slots = vec![Slot::default(); 2 * self.slots.len()];
        for slot in std::mem::replace(&mut self.slots, slots) {
            if slot.row > 0 {
                let at = self.find(slot.id);
                self.slots[at] = slot;
            }
        }
    }
}

/// The finaliser of SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, OOPSLA 2014): ids that follow each other lie apart.
fn spread(id: u64) -> u64 {
    let id = (id ^ (id >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let id = (id ^ (id >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    id ^ (id >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// Small ids, which come again, and ids at both ends.
    fn ids() -> impl Strategy<Value = Vec<u64>> {
        let id = prop_oneof![0u64..40, any::<u64>(), Just(0), Just(u64::MAX), (u64::MAX - 20)..];
        prop::collection::vec(id, 0..300)
    }

    proptest! {
        #[test]
        fn rows_are_those_of_the_standard_map(ids in ids(), max_rows in 1usize..200) {
            let mut map = IdMap::new(max_rows).unwrap();
            let (mut known, mut refused): (HashMap<u64, u32>, u64) = (HashMap::new(), 0);
            for &id in &ids {
                prop_assert_eq!(map.row(id), known.get(&id).copied().unwrap_or(0));
                let next = known.len() as u32 + 1;
                let expected = match known.get(&id) {
                    Some(&row) => row,
                    None if (next as usize) < max_rows => *known.entry(id).or_insert(next),
                    None => { refused += 1; 0 }
                };
                prop_assert_eq!(map.row_or_insert(id), expected);
            }
            prop_assert_eq!((map.len(), map.rows(), map.refused()), (known.len(), known.len() + 1, refused));
            prop_assert!(map.rows() <= max_rows && map.is_empty() == known.is_empty());
            for (i, id) in map.ids().into_iter().enumerate() {
                prop_assert_eq!(known[&id] as usize, i + 1);
            }
        }

        #[test]
        fn bytes_come_back_as_the_same_map(ids in ids(), max_rows in 1usize..200) {
            let mut map = IdMap::new(max_rows).unwrap();
            for &id in &ids {
                map.row_or_insert(id);
            }
            let bytes = map.to_bytes();
            let mut read = IdMap::from_bytes(&bytes).unwrap();
            prop_assert_eq!(read.to_bytes(), bytes);
            // And goes on as the one that was written.
            for id in ids.into_iter().chain(500..520) {
                prop_assert_eq!(read.row_or_insert(id), map.row_or_insert(id));
            }
            prop_assert_eq!(read.to_bytes(), map.to_bytes());
        }

        #[test]
        fn any_bytes_are_a_map_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..100), max_rows in 0u64..20, ids in prop::collection::vec(0u64..9, 0..12),
        ) {
            // Of bytes that can be read, the map is written as it was.
            let words = [max_rows, 7].into_iter().chain(ids).flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
            for bytes in [bytes, words] {
                if let Ok(map) = IdMap::from_bytes(&bytes) {
                    prop_assert_eq!(map.to_bytes(), bytes);
                }
            }
        }
    }

    #[test]
    fn damaged_bytes_are_told() {
        let bytes = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let told = |bytes: &[u8]| IdMap::from_bytes(bytes).unwrap_err().to_string();
        assert!(told(&[0; 15]).contains("15 bytes are not a head of 16"));
        assert!(told(&[0; 20]).contains("20 bytes"));
        assert!(told(&bytes(&[0, 0])).contains("0 rows at most; from 1 to 4294967295 are possible"));
        assert!(told(&bytes(&[u64::MAX, 0])).contains("rows at most"));
        assert!(told(&bytes(&[3, 0, 5, 6, 7])).contains("an id for row 3, of 3"));
        assert!(told(&bytes(&[9, 0, 5, 6, 5])).contains("id 5 has two rows, of which one is 3"));
    }
}
