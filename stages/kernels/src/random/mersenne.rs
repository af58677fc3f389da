//! NumPy's legacy generator, bit for bit.

/// Words of state, and the distance of the recurrence (Matsumoto and Nishimura 1998, table 2).
const WORDS: usize = 624;
const DISTANCE: usize = 397;
const TWIST: u32 = 0x9908_B0DF;
const UPPER_BIT: u32 = 0x8000_0000;

/// MT19937 with the draws of NumPy's `RandomState`.
///
/// Equal to NumPy 2.4.6 `RandomState(seed)` for `randint`, `shuffle` and `choice`; the vectors in `tests/golden/splits`
/// hold it to nnU-Net's folds.
///
/// # Reference
/// Matsumoto, Nishimura: Mersenne twister (1998), doi:10.1145/272991.272995.
#[derive(Debug, Clone)]
pub struct MersenneTwister {
    state: Box<[u32; WORDS]>,
    position: usize,
}

impl MersenneTwister {
    /// The state of `RandomState(seed)`.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        let mut state = Box::new([0; WORDS]);
        state[0] = seed;
        for index in 1..WORDS {
            let previous = state[index - 1];
            state[index] = 1_812_433_253_u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(index as u32);
        }
        Self { state, position: WORDS }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.position == WORDS {
            self.twist();
        }
        let word = self.state[self.position];
        self.position += 1;
        temper(word)
    }

    /// The next 64 random bits; NumPy takes the upper half first.
    pub fn next_u64(&mut self) -> u64 {
        let upper = u64::from(self.next_u32()) << 32;
        upper | u64::from(self.next_u32())
    }

    /// A whole number from 0 to `max` itself.
    ///
    /// NumPy masks to the next power of two and draws again while the number is too large; it draws 32 bits where `max`
    /// fits into them, else 64, and nothing at all where `max` is 0.
    pub fn interval(&mut self, max: u64) -> u64 {
        if max == 0 {
            return 0;
        }
        let mask = u64::MAX >> max.leading_zeros();
        let narrow = max <= u64::from(u32::MAX);
        loop {
            let word = if narrow { u64::from(self.next_u32()) } else { self.next_u64() };
            if word & mask <= max {
                return word & mask;
            }
        }
    }

    /// Brings `items` into the order of `RandomState.shuffle`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.interval(last as u64) as usize;
            items.swap(last, other);
        }
    }

    /// `count` numbers below `population`, as `RandomState.choice(population, count)` draws them; none where the
    /// population is empty.
    ///
    /// The numbers come one at a time, so that a sample of 10^8 needs no memory of its own; those that are not taken are
    /// not drawn either.
    pub fn choice_with_replacement(&mut self, population: usize, count: usize) -> impl Iterator<Item = usize> {
        let count = if population == 0 { 0 } else { count };
        (0..count).map(move |_| self.interval(population as u64 - 1) as usize)
    }

    /// How often each number below `population` is among `count` of them, drawn as by
    /// [`choice_with_replacement`](Self::choice_with_replacement).
    ///
    /// Several times as fast as to count the numbers one by one: words of a whole block that are too large are dropped
    /// without a branch that the processor would have to guess.
    #[must_use]
    pub fn tally_with_replacement(&mut self, population: usize, count: usize) -> Vec<u32> {
        let mut tally = vec![0; population];
        let Some(max) = population.checked_sub(1) else { return tally };
        let mut left = count;
        // A population of one draws no words, one beyond 32 bits two words a number: neither is for the fast path.
        if let Ok(max @ 1..) = u32::try_from(max) {
            let mask = u32::MAX >> max.leading_zeros();
            while left >= WORDS {
                let mut numbers = [0; WORDS];
                let words = self.rest_of_block();
                // Two loops, because the first one is done on several words at once.
                numbers.iter_mut().zip(words).for_each(|(number, &word)| *number = temper(word) & mask);
                let mut n_accepted = 0;
                for index in 0..words.len() {
                    let number = numbers[index];
                    numbers[n_accepted] = number;
                    n_accepted += usize::from(number <= max);
                }
                self.position = WORDS;
                numbers[..n_accepted].iter().for_each(|&number| tally[number as usize] += 1);
                left -= n_accepted;
            }
        }
        (0..left).for_each(|_| tally[self.interval(max as u64) as usize] += 1);
        tally
    }

    /// `count` different numbers below `population`, as `RandomState.choice(population, count, replace=False)` draws them;
    /// all of the population where it is smaller than `count`.
    pub fn choice_without_replacement(&mut self, population: usize, count: usize) -> Vec<usize> {
        // NumPy shuffles from the end and takes the first: no number is settled before the last swap.
        let mut numbers: Vec<usize> = (0..population).collect();
        self.shuffle(&mut numbers);
        numbers.truncate(count);
        numbers
    }

    /// The untempered words that are left before the next twist; at least one.
    fn rest_of_block(&mut self) -> &[u32] {
        if self.position == WORDS {
            self.twist();
        }
        &self.state[self.position..]
    }

    fn twist(&mut self) {
        let state = &mut *self.state;
        // Three loops instead of one with remainders, which costs more than the rest of the twist.
        for index in 0..WORDS - DISTANCE {
            state[index] = state[index + DISTANCE] ^ mix(state[index], state[index + 1]);
        }
        for index in WORDS - DISTANCE..WORDS - 1 {
            state[index] = state[index + DISTANCE - WORDS] ^ mix(state[index], state[index + 1]);
        }
        state[WORDS - 1] = state[DISTANCE - 1] ^ mix(state[WORDS - 1], state[0]);
        self.position = 0;
    }
}

/// The upper bit of one word and the others of the next, multiplied by the matrix of the recurrence.
fn mix(word: u32, next: u32) -> u32 {
    let mixed = (word & UPPER_BIT) | (next & !UPPER_BIT);
    (mixed >> 1) ^ (TWIST & (mixed & 1).wrapping_neg())
}

fn temper(mut word: u32) -> u32 {
    word ^= word >> 11;
    word ^= (word << 7) & 0x9D2C_5680;
    word ^= (word << 15) & 0xEFC6_0000;
    word ^ (word >> 18)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_words_of_seed_12345_are_numpys() {
        let mut random = MersenneTwister::new(12345);
        let words: Vec<u32> = (0..4).map(|_| random.next_u32()).collect();
        assert_eq!(words, [3_992_670_690, 3_823_185_381, 1_358_822_685, 561_383_553]);
    }

    #[test]
    fn an_interval_of_one_number_draws_nothing() {
        let mut random = MersenneTwister::new(12345);
        assert_eq!(random.interval(0), 0);
        assert_eq!(random.next_u32(), 3_992_670_690);
    }

    /// `numpy.random.RandomState(12345)` after 2000 words: the twist past the first block is NumPy's too.
    #[test]
    fn words_of_later_blocks_are_numpys() {
        let mut random = MersenneTwister::new(12345);
        let words: Vec<u32> = (0..2004).map(|_| random.next_u32()).skip(2000).collect();
        assert_eq!(words, [3_425_857_205, 1_537_607_618, 3_104_276_836, 2_367_202_502]);
    }

    #[test]
    fn a_tally_counts_the_numbers_that_are_drawn_one_by_one() {
        arbtest::arbtest(|source| {
            let seed = source.arbitrary()?;
            let population = source.int_in_range(0..=3000)?;
            let (mut fast, mut slow) = (MersenneTwister::new(seed), MersenneTwister::new(seed));
            for _ in 0..2 {
                let count = source.int_in_range(0..=5000)?;
                let mut expected = vec![0; population];
                slow.choice_with_replacement(population, count).for_each(|number| expected[number] += 1);
                assert_eq!(fast.tally_with_replacement(population, count), expected);
            }
            assert_eq!(fast.next_u32(), slow.next_u32());
            Ok(())
        });
    }
}
