//! A counter-based generator: Philox4x32-10.

/// Numbers of Philox4x32-10, for whoever computes its blocks on another device.
pub mod philox {
    /// Round multipliers (Salmon et al. 2011, table 2).
    pub const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    /// What is added to the key after each round (section 4.2).
    pub const KEY_INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    /// Rounds of a block.
    pub const ROUNDS: usize = 10;
}

use philox::{KEY_INCREMENTS, MULTIPLIERS, ROUNDS};

/// Set apart from the keys of seeds, so that a forked stream's key comes from blocks that no stream hands out.
const FORK_KEY: [u32; 2] = [0x6E6E_666C, 0x6F77_666B];

/// Random numbers that are a function of a seed and a counter, and of nothing else.
///
/// Give what is drawn for its own counter, e.g. `[epoch, iteration, sample]`: it then draws the same numbers whichever
/// thread works on it, and after a restart.
///
/// # Reference
/// Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011), doi:10.1145/2063384.2063405;
/// equal to the known answers that Random123 publishes for Philox4x32-10.
#[derive(Debug, Clone)]
pub struct CounterRandom {
    key: [u32; 2],
    counter: [u32; 3],
    block: u32,
    words: [u32; 4],
    used: usize,
    spare_normal: Option<f64>,
}

impl CounterRandom {
    /// The stream of `seed` at `counter`; it holds 2^34 words.
    #[must_use]
    pub fn new(seed: u64, counter: [u32; 3]) -> Self {
        Self::with_key([seed as u32, (seed >> 32) as u32], counter)
    }

    fn with_key(key: [u32; 2], counter: [u32; 3]) -> Self {
        Self { key, counter, block: 0, words: [0; 4], used: 4, spare_normal: None }
    }

    /// Another stream that follows from this one's seed and counter and from `tag`, not from what was drawn so far.
    ///
    /// With a stream for each purpose, drawing one number more for one of them does not change the others.
    #[must_use]
    pub fn fork(&self, tag: u32) -> Self {
        let [first, second, third] = self.counter;
        let key = [self.key[0] ^ FORK_KEY[0], self.key[1] ^ FORK_KEY[1]];
        let words = block([tag, first, second, third], key);
        Self::with_key([words[0], words[1]], self.counter)
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == self.words.len() {
            let [first, second, third] = self.counter;
            self.words = block([self.block, first, second, third], self.key);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        let word = self.words[self.used];
        self.used += 1;
        word
    }

    /// The next 64 random bits, the first word below the second.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// A number of `[0, 1)` with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// A number between `low` and `high`.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// A number of the normal distribution with mean 0 and standard deviation 1 (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare_normal.take() {
            return spare;
        }
        // One minus a number of [0, 1) is above 0, where the logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare_normal = Some(radius * sine);
        radius * cosine
    }

    /// A whole number below `n`, each equally likely; 0 where `n` is 0.
    ///
    /// # Reference
    /// Lemire: Fast random integer generation in an interval (2019), doi:10.1145/3230636.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        if n == 0 {
            return 0;
        }
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as usize;
            }
        }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Brings `items` into a random order, each equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// One block of Philox4x32-10.
fn block(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let first = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(KEY_INCREMENTS[0]), key[1].wrapping_add(KEY_INCREMENTS[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_meets_the_known_answers_of_random123() {
        let answers = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in answers {
            assert_eq!(block(counter, key), expected);
        }
    }

    #[test]
    fn the_stream_is_the_blocks_in_order() {
        let mut random = CounterRandom::new(0xBBBB_BBBB_AAAA_AAAA, [7, 8, 9]);
        let words: Vec<u32> = (0..8).map(|_| random.next_u32()).collect();
        let key = [0xAAAA_AAAA, 0xBBBB_BBBB];
        assert_eq!(words, [block([0, 7, 8, 9], key), block([1, 7, 8, 9], key)].concat());
    }

    #[test]
    fn a_fork_does_not_depend_on_what_was_drawn() {
        let mut drawn = CounterRandom::new(5, [1, 2, 3]);
        let mut before = drawn.fork(4);
        drawn.normal();
        assert_eq!(before.next_u64(), drawn.fork(4).next_u64());
        assert_ne!(drawn.fork(4).next_u64(), drawn.fork(5).next_u64());
    }

    #[test]
    fn uniform_has_the_moments_of_the_unit_interval() {
        let mut random = CounterRandom::new(1, [0; 3]);
        let draws: Vec<f64> = (0..100_000).map(|_| random.uniform()).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 1e5;
        // Five standard errors of each.
        assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0_f64 / 1e5).sqrt(), "mean {mean}");
        assert!((variance - 1.0 / 12.0).abs() < 5.0 * (1.0 / 180.0_f64 / 1e5).sqrt(), "variance {variance}");
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
    }

    #[test]
    fn normal_has_mean_0_variance_1_and_kurtosis_3() {
        let mut random = CounterRandom::new(2, [0; 3]);
        let draws: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let moment = |power: i32| draws.iter().map(|draw| draw.powi(power)).sum::<f64>() / 1e5;
        // Five standard errors: the variances of x, x^2 and x^4 are 1, 2 and 96.
        assert!(moment(1).abs() < 5.0 * (1.0_f64 / 1e5).sqrt());
        assert!((moment(2) - 1.0).abs() < 5.0 * (2.0_f64 / 1e5).sqrt());
        assert!((moment(4) - 3.0).abs() < 5.0 * (96.0_f64 / 1e5).sqrt());
    }

    #[test]
    fn below_draws_every_number_equally_often() {
        let mut random = CounterRandom::new(3, [0; 3]);
        let mut counts = [0_i32; 7];
        for _ in 0..70_000 {
            counts[random.below(7)] += 1;
        }
        assert!(counts.iter().all(|count| (count - 10_000).abs() < 500), "{counts:?}");
    }

    #[test]
    fn below_zero_is_zero() {
        assert_eq!(CounterRandom::new(0, [0; 3]).below(0), 0);
    }

    #[test]
    fn shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        CounterRandom::new(4, [0; 3]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
