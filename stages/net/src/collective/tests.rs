use arbtest::arbitrary::Unstructured;

use super::*;
use crate::testing::on_ranks;

const CPU: Device = Device::Cpu { threads: 1 };

/// What each rank gets of `work`.
fn together<R: Send>(ranks: usize, work: impl Fn(&Collective) -> R + Sync) -> Vec<R> {
    on_ranks(ranks, |exchange| work(&Collective::among(exchange, CPU).expect("a CPU needs no NCCL")))
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = Vec::try_from(tensor.flatten(0, -1)).expect("floats on the CPU");
    values.into_iter().map(f32::to_bits).collect()
}

/// Terms of all ranks, of one length, whose sum hangs on the order: magnitudes from 2^-20 to 2^20.
fn terms(unstructured: &mut Unstructured<'_>) -> arbtest::arbitrary::Result<Vec<Vec<Vec<f32>>>> {
    let (ranks, length) = (unstructured.int_in_range(1..=4)?, unstructured.int_in_range(1..=30)?);
    let mut number = || -> arbtest::arbitrary::Result<f32> {
        let mantissa = unstructured.int_in_range(-1_000_000..=1_000_000)? as f32;
        Ok(mantissa * 2.0_f32.powi(unstructured.int_in_range(-20..=20)?))
    };
    let mut all = Vec::new();
    for rank in 0..ranks {
        let terms = (0..=rank % 3).map(|_| (0..length).map(|_| number()).collect());
        all.push(terms.collect::<arbtest::arbitrary::Result<_>>()?);
    }
    Ok(all)
}

#[test]
fn sums_are_taken_in_the_order_of_ranks_on_all_of_them() {
    arbtest::arbtest(|unstructured| {
        let terms = terms(unstructured)?;
        let length = terms[0][0].len();
        let in_order = |index: usize| terms.iter().flatten().map(|term| term[index]).reduce(|sum, term| sum + term);
        let expected: Vec<u32> = (0..length).map(|index| in_order(index).expect("a term").to_bits()).collect();
        let sums = together(terms.len(), |collective| {
            let mine = terms[collective.rank()].iter().map(|term| Tensor::from_slice(term)).collect();
            bits(&collective.sum(mine).expect("all are there"))
        });
        assert_eq!(sums, vec![expected; terms.len()]);
        Ok(())
    });
}

#[test]
fn a_sum_keeps_the_shape_and_whole_numbers_stay_whole() {
    let sums = together(3, |collective| {
        let mine = Tensor::from_slice(&[1_i64 << 60, 2, 3, 4]).view([2, 2]) + collective.rank() as i64;
        collective.sum(vec![mine]).expect("all are there")
    });
    for sum in sums {
        assert_eq!(sum, Tensor::from_slice(&[3 * (1_i64 << 60) + 3, 9, 12, 15]).view([2, 2]));
    }
}

#[test]
fn a_long_tensor_goes_in_parts() {
    let length = NUMBERS_AT_A_TIME as i64 + 3;
    let sums = together(2, |collective| {
        let mine = Tensor::arange(length, (Kind::Int64, tch::Device::Cpu)) * (1 + collective.rank() as i64);
        collective.sum(vec![mine]).expect("all are there")
    });
    assert_eq!(sums[1], Tensor::arange(length, (Kind::Int64, tch::Device::Cpu)) * 3);
}

#[test]
fn everybody_has_what_the_first_one_spreads() {
    let spread = together(3, |collective| {
        let mut tensor = Tensor::from_slice(&[0.1_f32, -0.0, f32::MAX]) * (collective.rank() as f64 + 1.0);
        collective.spread(&mut tensor).expect("all are there");
        bits(&tensor)
    });
    assert_eq!(spread, vec![bits(&Tensor::from_slice(&[0.1_f32, -0.0, f32::MAX])); 3]);
}

#[test]
fn everybody_hears_what_the_first_one_tells() {
    let told =
        together(3, |collective| collective.tell(&format!("from {}", collective.rank())).expect("all are there"));
    assert_eq!(told, ["from 0"; 3]);
}

#[test]
fn rows_stand_below_each_other() {
    let rows = together(2, |collective| {
        let mine = Tensor::from_slice(&[1.5_f32, 2.5]).view([1, 2]) * (collective.rank() as f64 + 1.0);
        collective.rows(&mine, collective.rank(), 2).expect("all are there")
    });
    assert_eq!(rows[0], Tensor::from_slice(&[1.5_f32, 2.5, 3.0, 5.0]).view([2, 2]));
}

#[test]
fn a_rank_that_is_at_another_step_is_named() {
    let errors = together(2, |collective| {
        let mine = Tensor::ones([3 + collective.rank() as i64], (Kind::Float, tch::Device::Cpu));
        collective.sum(vec![mine]).expect_err("the lengths differ").to_string()
    });
    assert_eq!(errors[0], "process 1 of the training gave 16 bytes, expected a multiple of 12");
}

#[test]
fn a_rank_that_is_gone_is_an_error_not_a_wait() {
    let ends = together(2, |collective| match collective.rank() {
        0 => collective.meet().and_then(|()| collective.meet()).map_err(|error| error.to_string()),
        _ => collective.meet().map_err(|error| error.to_string()),
    });
    assert_eq!(ends[0], Err("the other processes of the training are gone: a thread has ended".to_owned()));
}

#[test]
fn one_process_alone_needs_nobody() {
    let alone = Collective::alone();
    let sum = alone.sum(vec![Tensor::from(1.5_f32), Tensor::from(2.0_f32)]).expect("two numbers");
    assert_eq!((alone.ranks(), alone.is_first(), sum), (1, true, Tensor::from(3.5_f32)));
}
