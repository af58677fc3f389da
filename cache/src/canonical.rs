//! Canonical JSON: one text for each value.
//!
//! Keys are digests of JSON texts, so equal values must have equal texts whatever the order in which
//! their tables were filled (`serde_json` keeps that order here).

use serde_json::{Map, Number, Value};

/// Integers up to here are exact in a double, and so are written alike whichever type they came in.
const TWO_POW_64: f64 = 18_446_744_073_709_551_616.0;

/// The canonical text of a JSON value: RFC 8785 (JCS), but integers keep all their digits.
///
/// - no white space; object members sorted by the UTF-16 code units of their names;
/// - strings escape only `"`, `\` and control characters, the latter as `\b \t \n \f \r` or `\u00xx`;
/// - numbers are written as ECMAScript does, with the fewest digits that read back as the same double:
///   `1.0` is `1`, `-0.0` is `0`, `1e21` is `1e+21`. Whole numbers below 2⁶⁴ are written exactly, where
///   RFC 8785 would round those beyond 2⁵³: a seed of 64 bits must not share its key with its neighbour.
///   Of two texts that are equally short and equally near, it is the one that Rust chooses.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&canonical_number(number)),
        Value::String(string) => write_string(text, string),
        Value::Array(items) => write_array(text, items),
        Value::Object(members) => write_object(text, members),
    }
}

fn write_array(text: &mut String, items: &[Value]) {
    text.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_value(text, item);
    }
    text.push(']');
}

fn write_object(text: &mut String, members: &Map<String, Value>) {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    text.push('{');
    for (index, (name, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(text, name);
        text.push(':');
        write_value(text, value);
    }
    text.push('}');
}

fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for character in string.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            '\0'..='\u{1f}' => text.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => text.push(character),
        }
    }
    text.push('"');
}

fn canonical_number(number: &Number) -> String {
    match number.as_f64() {
        Some(double) if number.is_f64() => canonical_double(double),
        _ => number.to_string(),
    }
}

fn canonical_double(double: f64) -> String {
    let magnitude = double.abs();
    if double.fract() == 0.0 && magnitude < TWO_POW_64 {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^64 fits into 128 bits")]
        let whole = double as i128;
        return whole.to_string();
    }
    if (1e-6..1e21).contains(&magnitude) {
        return double.to_string();
    }
    let scientific = format!("{double:e}");
    if scientific.contains("e-") { scientific } else { scientific.replace('e', "e+") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arbtest::arbitrary::{Result, Unstructured};
    use serde_json::json;

    fn check(value: &Value, expected: &str) {
        assert_eq!(canonical_json(value), expected);
    }

    #[test]
    fn members_are_sorted_as_in_section_3_2_3_of_rfc_8785() {
        let value = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control", "\u{f6}": "Latin Small Letter O With Diaeresis"
        });
        check(
            &value,
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u{80}\":\"Control\",\
             \"\u{f6}\":\"Latin Small Letter O With Diaeresis\",\"\u{20ac}\":\"Euro Sign\",\
             \"\u{1f600}\":\"Emoji: Grinning Face\",\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}",
        );
    }

    #[test]
    fn the_example_of_section_3_2_2_of_rfc_8785_has_its_text() {
        let text = r#"{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"#;
        check(
            &serde_json::from_str(text).unwrap(),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}",
        );
    }

    #[test]
    fn doubles_have_the_texts_of_appendix_b_of_rfc_8785() {
        // Left out: 1424953923781206.25, for which both …206.2 and …206.3 are shortest and equally near.
        for (bits, expected) in [
            (0x0000_0000_0000_0000, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0xc340_0000_0000_0000, "-9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5557, "333333333.33333343"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        ] {
            check(&json!(f64::from_bits(bits)), expected);
        }
    }

    #[test]
    fn whole_numbers_of_64_bits_keep_all_their_digits() {
        check(
            &json!([u64::MAX, i64::MIN, (1_u64 << 53) + 1]),
            "[18446744073709551615,-9223372036854775808,9007199254740993]",
        );
    }

    #[test]
    fn a_whole_double_and_the_same_integer_have_one_text() {
        check(&json!([1.0, 9_223_372_036_854_775_808.0_f64]), "[1,9223372036854775808]");
    }

    /// A value of limited depth, its members in the order in which they were drawn.
    fn any_value(u: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
        Ok(match u.int_in_range(0..=if depth == 0 { 4 } else { 6 })? {
            0 => Value::Null,
            1 => json!(u.arbitrary::<bool>()?),
            2 => json!(u.arbitrary::<i64>()?),
            3 => json!(u.arbitrary::<f64>()?),
            4 => json!(u.arbitrary::<String>()?),
            5 => (0..u.int_in_range(0..=4)?).map(|_| any_value(u, depth - 1)).collect::<Result<Vec<_>>>()?.into(),
            _ => {
                let members = (0..u.int_in_range(0..=4)?).map(|_| Ok((u.arbitrary()?, any_value(u, depth - 1)?)));
                Value::Object(members.collect::<Result<Map<String, Value>>>()?)
            }
        })
    }

    /// The same value with the members of every object in another order.
    fn shuffled(u: &mut Unstructured<'_>, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::Array(items) => items.iter().map(|item| shuffled(u, item)).collect::<Result<Vec<_>>>()?.into(),
            Value::Object(members) => {
                let mut pairs: Vec<_> = members.iter().collect();
                for last in (1..pairs.len()).rev() {
                    pairs.swap(last, u.int_in_range(0..=last)?);
                }
                let pairs = pairs.into_iter().map(|(name, value)| Ok((name.clone(), shuffled(u, value)?)));
                Value::Object(pairs.collect::<Result<Map<String, Value>>>()?)
            }
            other => other.clone(),
        })
    }

    #[test]
    fn the_order_of_members_never_matters() {
        arbtest::arbtest(|u| {
            let value = any_value(u, 3)?;
            let other = shuffled(u, &value)?;
            assert_eq!(canonical_json(&value), canonical_json(&other));
            Ok(())
        });
    }

    #[test]
    fn the_text_reads_back_and_is_its_own_canonical_text() {
        arbtest::arbtest(|u| {
            let text = canonical_json(&any_value(u, 3)?);
            let again: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(canonical_json(&again), text);
            Ok(())
        });
    }

    #[test]
    fn different_doubles_have_different_texts() {
        arbtest::arbtest(|u| {
            let double: f64 = u.arbitrary()?;
            if double.is_finite() {
                let text = canonical_json(&json!(double));
                assert_eq!(text.parse::<f64>().unwrap(), double, "{text}");
            }
            Ok(())
        });
    }
}
