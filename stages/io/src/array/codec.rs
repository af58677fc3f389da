//! Shuffling of bytes, and LZ4.
//!
//! Neighbouring voxels differ in their lowest bytes and agree in their highest. LZ4 finds repeated byte strings only, so
//! the bytes of equal significance are brought together first.

use super::element::Element;

/// A compressed chunk must be smaller by at least this part of its raw size to be worth the time of decompressing it.
const LEAST_SAVING: usize = 16;

/// The bytes of a chunk as they are stored.
pub(super) fn encode<T: Element>(elements: &[T]) -> Vec<u8> {
    let shuffled = shuffle(elements);
    let compressed = lz4_flex::block::compress(&shuffled);
    let worth_it = compressed.len() < shuffled.len() - shuffled.len() / LEAST_SAVING;
    if worth_it { compressed } else { shuffled }
}

/// Most bytes that `stored` bytes can stand for; what declares more is corrupt, and nothing is allocated for it.
///
/// One byte of an LZ4 block extends a match by at most 255, and its first token and literals add less than 64.
pub(super) fn most_decoded(stored: usize) -> usize {
    stored.saturating_mul(255).saturating_add(64)
}

/// The bytes of all elements, lowest first.
fn shuffle<T: Element>(elements: &[T]) -> Vec<u8> {
    match T::KIND.width() {
        1 => bytemuck::cast_slice(elements).to_vec(),
        2 => shuffle_words::<u16>(bytemuck::cast_slice(elements)),
        _ => shuffle_words::<u32>(bytemuck::cast_slice(elements)),
    }
}

fn shuffle_words<W: Word>(words: &[W]) -> Vec<u8> {
    let mut planes = vec![0; size_of_val(words)];
    for (significance, plane) in planes.chunks_exact_mut(words.len().max(1)).enumerate() {
        for (target, word) in plane.iter_mut().zip(words) {
            *target = word.byte(significance);
        }
    }
    planes
}

/// Restores the elements from `first` on, as many as `elements` has room for, from the shuffled bytes of a chunk.
pub(super) fn unshuffle<T: Element>(planes: &[u8], first: usize, elements: &mut [T]) {
    match T::KIND.width() {
        1 => {
            let [bytes] = bytes_of(planes, first, elements.len());
            bytemuck::cast_slice_mut(elements).copy_from_slice(bytes);
        }
        2 => {
            let [low, high] = bytes_of(planes, first, elements.len());
            let words = bytemuck::cast_slice_mut::<T, u16>(elements).iter_mut();
            words.zip(low).zip(high).for_each(|((word, &low), &high)| *word = u16::from_le_bytes([low, high]));
        }
        _ => {
            let [first, second, third, fourth] = bytes_of(planes, first, elements.len());
            let words = bytemuck::cast_slice_mut::<T, u32>(elements).iter_mut();
            words.zip(first).zip(second).zip(third).zip(fourth).for_each(|((((word, &a), &b), &c), &d)| {
                *word = u32::from_le_bytes([a, b, c, d]);
            });
        }
    }
}

/// For each significance the bytes of `count` elements from `first` on.
fn bytes_of<const WIDTH: usize>(planes: &[u8], first: usize, count: usize) -> [&[u8]; WIDTH] {
    let plane = planes.len() / WIDTH;
    std::array::from_fn(|significance| &planes[significance * plane + first..][..count])
}

/// An element as a number, whose bytes have a significance whatever their order in memory. Shifts of numbers are what a
/// compiler makes vectors of; picking every fourth byte is not.
trait Word: Copy {
    /// The byte of a significance, counted from the lowest.
    fn byte(self, significance: usize) -> u8;
}

impl Word for u16 {
    fn byte(self, significance: usize) -> u8 {
        (self >> (8 * significance)) as u8
    }
}

impl Word for u32 {
    fn byte(self, significance: usize) -> u8 {
        (self >> (8 * significance)) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_equal_significance_stand_together() {
        assert_eq!(shuffle(&[0x0201_u16, 0x0403, 0x0605]), [1, 3, 5, 2, 4, 6]);
    }

    #[test]
    fn part_of_a_chunk_is_restored() {
        let mut elements = [0_u16; 2];
        unshuffle(&[1, 3, 5, 2, 4, 6], 1, &mut elements);
        assert_eq!(elements, [0x0403, 0x0605]);
    }

    #[test]
    fn noise_is_stored_as_it_is() {
        let mut state = 1_u32;
        let noise: Vec<u8> = (0..4096)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        assert_eq!(encode(&noise), noise);
    }

    #[test]
    fn the_highest_compression_stays_below_the_bound() {
        let zeros = vec![0_f32; 1 << 20];
        assert!(most_decoded(encode(&zeros).len()) >= zeros.len() * 4);
    }
}
