//! Sizes, durations and devices as people write them.

use std::time::Duration;

use super::model::{Device, SharedUse};
use super::read::{mismatch, text};
use super::tree::Value;
use crate::diagnostic::Diagnostic;

const SIZE: &str = "a size such as \"12 GiB\"";
const DURATION: &str = "a duration such as \"24h\" or \"1h 30m\"";
const DEVICE: &str = "one of \"auto\", \"cpu\", \"cuda\", \"cuda:0\"";

const SHARED_USE: &str = "one of \"read-write\", \"read-only\", \"off\"";

/// Units of memory and how many bytes they are; upper and lower case are the same.
const SIZE_UNITS: &[(&str, f64)] = &[
    ("b", 1.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("tb", 1e12),
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
    ("tib", 1_099_511_627_776.0),
];

/// Units of time and how many seconds they are.
const TIME_UNITS: &[(&str, f64)] = &[("s", 1.0), ("min", 60.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)];

/// No size above this is meant: one pebibyte, in bytes.
const LARGEST_SIZE: f64 = 1_125_899_906_842_624.0;

/// No duration above this is meant: ten years, in seconds.
const LONGEST_DURATION: f64 = 315_360_000.0;

pub(super) fn size(value: &Value, path: &str) -> Result<u64, Diagnostic> {
    let written = text(value, path).map_err(|_| mismatch(value, path, SIZE))?;
    parse_size(&written.value).ok_or_else(|| mismatch(value, path, SIZE).maybe_hint(size_hint(&written.value)))
}

pub(super) fn duration(value: &Value, path: &str) -> Result<Duration, Diagnostic> {
    let written = text(value, path).map_err(|_| mismatch(value, path, DURATION))?;
    parse_duration(&written.value)
        .ok_or_else(|| mismatch(value, path, DURATION).hint("the units are `d`, `h`, `m` and `s`"))
}

pub(super) fn device(value: &Value, path: &str) -> Result<Device, Diagnostic> {
    let written = text(value, path).map_err(|_| mismatch(value, path, DEVICE))?;
    parse_device(&written.value).ok_or_else(|| mismatch(value, path, DEVICE))
}

pub(super) fn shared_use(value: &Value, path: &str) -> Result<SharedUse, Diagnostic> {
    let written = text(value, path).map_err(|_| mismatch(value, path, SHARED_USE))?;
    parse_shared_use(&written.value).ok_or_else(|| mismatch(value, path, SHARED_USE))
}

/// The use of `read-write`, `read-only` or `off`.
#[must_use]
pub fn parse_shared_use(written: &str) -> Option<SharedUse> {
    match written {
        "read-write" => Some(SharedUse::ReadWrite),
        "read-only" => Some(SharedUse::ReadOnly),
        "off" => Some(SharedUse::Off),
        _ => None,
    }
}

/// The bytes of a size such as `12 GiB` or `500 MB`; at least one.
#[must_use]
pub fn parse_size(written: &str) -> Option<u64> {
    let (number, unit, rest) = number_and_unit(written.trim())?;
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
    let size = (number * bytes).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be from 1 to 2^50")]
    (rest.is_empty() && (1.0..=LARGEST_SIZE).contains(&size)).then_some(size as u64)
}

/// The time of a duration such as `24h`, `1h 30m` or `90s`; above zero.
#[must_use]
pub fn parse_duration(written: &str) -> Option<Duration> {
    let mut rest = written.trim();
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest)?;
        let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds += number * factor;
        rest = after;
    }
    (seconds > 0.0 && seconds <= LONGEST_DURATION).then(|| Duration::from_secs_f64(seconds))
}

/// The device of `auto`, `cpu`, `cuda` or `cuda:N`.
#[must_use]
pub fn parse_device(written: &str) -> Option<Device> {
    match written {
        "auto" => Some(Device::Auto),
        "cpu" => Some(Device::Cpu),
        "cuda" => Some(Device::Cuda(None)),
        _ => {
            let digits = written.strip_prefix("cuda:")?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain).map(|number| Device::Cuda(Some(number)))
        }
    }
}

/// The number at the beginning, the letters after it, and what follows without the space before it.
fn number_and_unit(written: &str) -> Option<(f64, &str, &str)> {
    let digits =
        written.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(written.len());
    let (number, rest) = written.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(letters);
    Some((number.parse().ok()?, unit, rest.trim_start()))
}

fn size_hint(written: &str) -> Option<String> {
    let (number, unit, rest) = number_and_unit(written.trim())?;
    let unit = match (unit.to_ascii_lowercase().as_str(), rest) {
        ("k", "") => "KiB",
        ("m", "") => "MiB",
        ("g" | "", "") => "GiB",
        ("t", "") => "TiB",
        _ => return Some("the units are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB".to_owned()),
    };
    Some(format!("did you mean \"{number} {unit}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_and_decimal_sizes_differ() {
        assert_eq!(parse_size("12 GiB"), Some(12 * 1024 * 1024 * 1024));
        assert_eq!(parse_size("12GB"), Some(12_000_000_000));
        assert_eq!(parse_size("1.5 kib"), Some(1536));
    }

    #[test]
    fn sizes_without_unit_or_sense_are_refused() {
        for written in ["", "12", "GiB", "-1 GiB", "0 B", "1 GiB 2", "1e3 B", "9999999 TiB", "1.2.3 B", "12 Gi"] {
            assert_eq!(parse_size(written), None, "{written}");
        }
    }

    #[test]
    fn durations_add_their_parts() {
        assert_eq!(parse_duration("24h"), Some(Duration::from_secs(86400)));
        assert_eq!(parse_duration("1d 2h 30m 5s"), Some(Duration::from_secs(95405)));
        assert_eq!(parse_duration("90 min"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5h"), Some(Duration::from_secs(5400)));
    }

    #[test]
    fn durations_without_unit_or_sense_are_refused() {
        for written in ["", "24", "h", "-1h", "0s", "1 hour", "9999999d", "1h,2m"] {
            assert_eq!(parse_duration(written), None, "{written}");
        }
    }

    #[test]
    fn devices_are_what_the_worker_knows() {
        assert_eq!(parse_device("cuda:3"), Some(Device::Cuda(Some(3))));
        for written in ["auto", "cpu", "cuda", "cuda:11"] {
            assert_eq!(parse_device(written).map(|device| device.to_string()).as_deref(), Some(written));
        }
        for written in ["", "gpu", "cuda:", "cuda:+1", "cuda:-1", "CPU"] {
            assert_eq!(parse_device(written), None, "{written}");
        }
    }
}
