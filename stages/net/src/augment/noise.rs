//! Normal noise by the counter-based generator, block by block on the device.

use std::f64::consts::FRAC_PI_4;

use nnflow_kernels::augment::NOISE_PAIRS;
use nnflow_kernels::random::philox::{KEY_INCREMENTS, MULTIPLIERS, ROUNDS};
use tch::{Kind, Tensor};

use crate::device::Device;
use crate::error::TorchError;

/// Words of 32 bits stand in numbers of 64, because libtorch can neither multiply nor shift words without a sign.
const WORD: i64 = 0xFFFF_FFFF;

/// Words of a block.
const WORDS: i64 = 4;

/// The first `count` normal numbers of a seed's stream for a channel.
///
/// # Reference
/// The numbers of `nnflow_kernels::augment::add_noise` with `CounterRandom::new(seed, [channel, 0, 0])`, but for the last
/// digits of logarithms, sines and cosines.
pub(super) fn normal(seed: u64, channel: u32, count: i64, device: Device) -> Result<Tensor, TorchError> {
    let pairs = NOISE_PAIRS as i64;
    let chunks = (count + 2 * pairs - 1) / (2 * pairs);
    let words = stream([seed as u32, (seed >> 32) as u32], channel, chunks * 2 * pairs / WORDS, device)?;
    let words = words.f_view([chunks, 2, pairs])?;
    let (for_radius, for_angle) = (words.f_select(1, 0)?, words.f_select(1, 1)?);
    let top_bits = |words: &Tensor| words.f_bitwise_right_shift_tensor_scalar(8_i64);
    let uniform = top_bits(&for_radius)?.f_add_scalar(1_i64)?.f_to_kind(Kind::Float)?.f_mul_scalar(0.5_f64.powi(24))?;
    let radius = uniform.f_log()?.f_mul_scalar(-2.0)?.f_sqrt()?;
    let angle = top_bits(&for_angle)?.f_sub_scalar(1_i64 << 23)?.f_to_kind(Kind::Float)?;
    let angle = angle.f_mul_scalar(FRAC_PI_4 / f64::from(1 << 23))?;
    let (sine, cosine) = (angle.f_sin()?, angle.f_cos()?);
    // The angle covers a quarter of the circle; two bits that it does not use turn it by quarters.
    let is_turned = for_angle.f_bitwise_and(1_i64)?.f_eq(1_i64)?;
    let is_opposite = for_angle.f_bitwise_and(2_i64)?.f_eq(2_i64)?;
    let radius = radius.f_neg()?.f_where_self(&is_opposite, &radius)?;
    let first = sine.f_neg()?.f_where_self(&is_turned, &cosine)?.f_mul(&radius)?;
    let second = cosine.f_where_self(&is_turned, &sine)?.f_mul(&radius)?;
    Ok(Tensor::f_stack(&[first, second], 1)?.f_flatten(0, -1)?.f_narrow(0, 0, count)?)
}

/// The first words of the stream of `key` at `[channel, 0, 0]`: Philox4x32-10.
fn stream(mut key: [u32; 2], channel: u32, blocks: i64, device: Device) -> Result<Tensor, TorchError> {
    let block = Tensor::f_arange(blocks, (Kind::Int64, device.torch()))?;
    let constant = |word: u32| block.f_full_like(i64::from(word));
    let mut counter = [block.shallow_clone(), constant(channel)?, constant(0)?, constant(0)?];
    for _ in 0..ROUNDS {
        let (first_high, first_low) = product(&counter[0], MULTIPLIERS[0])?;
        let (second_high, second_low) = product(&counter[2], MULTIPLIERS[1])?;
        let mixed =
            |high: Tensor, word: &Tensor, key: u32| high.f_bitwise_xor_tensor(word)?.f_bitwise_xor(i64::from(key));
        counter =
            [mixed(second_high, &counter[1], key[0])?, second_low, mixed(first_high, &counter[3], key[1])?, first_low];
        key = [key[0].wrapping_add(KEY_INCREMENTS[0]), key[1].wrapping_add(KEY_INCREMENTS[1])];
    }
    Ok(Tensor::f_stack(&counter, 1)?.f_flatten(0, -1)?)
}

/// The upper and the lower word of a product; what overflows 64 bits wraps, and leaves the bits as they are.
fn product(words: &Tensor, factor: u32) -> Result<(Tensor, Tensor), TorchError> {
    let product = words.f_mul_scalar(i64::from(factor))?;
    let high = product.f_bitwise_right_shift_tensor_scalar(32_i64)?.f_bitwise_and(WORD)?;
    Ok((high, product.f_bitwise_and(WORD)?))
}

#[cfg(test)]
mod tests {
    use nnflow_kernels::augment::add_noise;
    use nnflow_kernels::random::CounterRandom;

    use super::*;

    const CPU: Device = Device::Cpu { threads: 1 };
    const SEED: u64 = 0xBBBB_BBBB_AAAA_AAAA;

    #[test]
    fn the_words_are_those_of_the_generator() {
        let words = Vec::<i64>::try_from(stream([0xAAAA_AAAA, 0xBBBB_BBBB], 7, 50, CPU).expect("on the CPU"));
        let mut random = CounterRandom::new(SEED, [7, 0, 0]);
        let expected: Vec<i64> = (0..200).map(|_| i64::from(random.next_u32())).collect();
        assert_eq!(words.expect("whole numbers"), expected);
    }

    /// A normal number of this stream is below 6; its logarithm, root, sine and cosine are each right to some 1e-7 of it.
    #[test]
    fn the_noise_is_that_of_the_kernels() {
        let mut expected = vec![0.0; 1001];
        add_noise(&mut expected, 1.0, &mut CounterRandom::new(SEED, [3, 0, 0]));
        let found = Vec::<f32>::try_from(normal(SEED, 3, 1001, CPU).expect("on the CPU")).expect("floats");
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 5e-6, "{worst}");
    }
}
