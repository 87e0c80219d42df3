// SPDX-License-Identifier: Apache-2.0
//! A hasher of words that nobody chooses in order to collide: keys that are counted up, pids, atoms, hashes.

use std::hash::Hasher;

/// Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): spreads the low bits of a word, where such
/// words differ, over the high ones, which tables and shards use.
pub fn spread(word: u64) -> u64 {
    word.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Hashes a word by [`spread`].
#[derive(Clone, Copy, Debug, Default)]
pub struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = spread(self.0 ^ word);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}
