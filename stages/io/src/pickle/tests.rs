//! Pickles that Python 3.11 wrote, and what becomes of them.

use super::*;

/// `pickle.dumps({'a': [1, 2.5, None, True], 'b': (300, -70000, 2**40, 2**70), 'c': {1}, 'd': b'xy', 'e': 'ü'}, protocol=4)`
const VALUES: &[u8] =
    b"\x80\x04\x95X\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01G@\x04\x00\x00\x00\x00\x00\x00N\x88e\
    \x8c\x01b\x94(M,\x01J\x90\xee\xfe\xff\x8a\x06\x00\x00\x00\x00\x00\x01\x8a\x09\x00\x00\x00\x00\x00\x00\x00\
    \x00@t\x94\x8c\x01c\x94\x8f\x94(K\x01\x90\x8c\x01d\x94C\x02xy\x94\x8c\x01e\x94\x8c\x02\xc3\xbc\x94u.";

/// An object whose `__reduce__` is `(os.system, ('touch …',))`, in protocol 2.
const MALICIOUS: &[u8] = b"\x80\x02cposix\nsystem\nq\x00X\x10\x00\x00\x00touch /tmp/pwnedq\x01\x85q\x02Rq\x03.";

/// A list that contains itself.
const CIRCLE: &[u8] = b"\x80\x02]q\x00h\x00a.";

/// `postprocessing.pkl` of nnU-Net 2.8.1 with two steps.
const POSTPROCESSING: &[u8] =
    b"\x80\x04\x95\xa4\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c3nnunetv2.postprocessing.remove_connected_components\
    \x94\x8c2remove_all_but_largest_component_from_segmentation\x94\x93\x94h\x03e]\x94(}\x94\x8c\x11labels_or_re\
    gions\x94]\x94(K\x01K\x02es}\x94h\x06K\x01K\x02\x86\x94se\x86\x94.";

fn problem(bytes: &[u8]) -> Problem {
    Document::parse(bytes).expect_err("the pickle is wrong").problem
}

#[test]
fn plain_values_come_out() {
    let document = Document::parse(VALUES).expect("Python wrote it");
    let root = document.root();
    let kinds = |key: &str| -> Vec<&str> {
        root.get(key).and_then(Value::items).expect("several values").map(Value::kind).collect()
    };
    assert_eq!(kinds("a"), ["a whole number", "a number", "None", "a truth value"]);
    let numbers = root.get("b").and_then(Value::items).expect("a tuple");
    assert_eq!(numbers.map(Value::as_i64).collect::<Vec<_>>(), [Some(300), Some(-70_000), Some(1 << 40), None]);
    assert_eq!(root.get("e").and_then(Value::as_str), Some("ü"));
}

#[test]
fn a_function_that_is_not_on_the_list_is_named_and_not_called() {
    let error = Document::parse(MALICIOUS).expect_err("it would call the shell").to_string();
    assert_eq!(
        error,
        "byte 2 of the pickle: it wants to use `posix.system` of Python, which is none of the names that a checkpoint \
         needs; nothing was run"
    );
}

#[test]
fn a_value_that_contains_itself_is_read() {
    let document = Document::parse(CIRCLE).expect("Python wrote it");
    let inner = document.root().items().and_then(|mut items| items.next()).expect("one member");
    assert_eq!(inner.items().map(|items| items.len()), Some(1));
}

#[test]
fn the_steps_of_a_postprocessing_come_out() {
    let document = Document::parse(POSTPROCESSING).expect("nnU-Net wrote it");
    let mut parts = document.root().items().expect("a tuple");
    let functions = parts.next().and_then(Value::items).expect("a list");
    let expected = Some("remove_all_but_largest_component_from_segmentation");
    assert!(functions.map(Value::as_name).all(|name| name == expected));
    let settings = parts.next().and_then(Value::items).expect("a list").next_back().expect("two steps");
    let labels = settings.get("labels_or_regions").and_then(Value::items).expect("a region");
    assert_eq!(labels.map(Value::as_i64).collect::<Vec<_>>(), [Some(1), Some(2)]);
}

#[test]
fn a_function_on_the_list_that_does_something_is_not_called_either() {
    let called = b"cnnunetv2.postprocessing.remove_connected_components\n\
        remove_all_but_largest_component_from_segmentation\n)R.";
    assert!(matches!(problem(called), Problem::Misuse { .. }));
}

#[test]
fn every_truncation_is_noticed() {
    for length in 0..VALUES.len() {
        Document::parse(&VALUES[..length]).expect_err("it ends too early");
    }
}

#[test]
fn a_length_beyond_the_end_is_refused_before_anything_is_allocated() {
    // A text of 2^63 bytes, and one of 2^32 - 1.
    assert_eq!(problem(b"\x80\x04\x8d\x00\x00\x00\x00\x00\x00\x00\x80x."), Problem::Truncated);
    assert_eq!(problem(b"\x80\x02X\xff\xff\xff\xffx."), Problem::Truncated);
}

#[test]
fn a_long_value_cannot_be_copied_without_end() {
    // A dictionary of 2000 entries, then 2000 copies of it.
    let mut bytes = b"\x80\x02ccollections\nOrderedDict\nq\x00}(".to_vec();
    bytes.extend(b"K\x01K\x01".repeat(2000));
    bytes.extend(b"u\x85q\x010");
    bytes.extend(b"h\x00h\x01R0".repeat(2000));
    bytes.extend(b"N.");
    assert_eq!(problem(&bytes), Problem::Copies);
}

#[test]
fn what_lies_below_a_mark_is_out_of_reach() {
    let operand = |bytes| matches!(problem(bytes), Problem::Operand { .. });
    assert!(operand(b"]K\x01(a.") && operand(b"N(\x85.") && operand(b"t.") && operand(b"h\x00."));
}

#[test]
fn what_is_written_is_read_back() {
    let value = Pickled::Dict(vec![
        ("whole".to_owned(), Pickled::Int(-1)),
        ("large".to_owned(), Pickled::Int(1 << 40)),
        ("list".to_owned(), Pickled::List(vec![Pickled::Float(0.5), Pickled::None, Pickled::Bool(true)])),
        ("text".to_owned(), "ü".into()),
        ("tensor".to_owned(), Pickled::Tensor { storage: "7".to_owned(), shape: vec![2, 3, 4] }),
    ]);
    let document = Document::parse(&to_vec(&value)).expect("it was just written");
    let root = document.root();
    assert_eq!(root.get("whole").and_then(Value::as_i64), Some(-1));
    assert_eq!(root.get("large").and_then(Value::as_i64), Some(1 << 40));
    assert_eq!(root.get("text").and_then(Value::as_str), Some("ü"));
    let items = root.get("list").and_then(Value::items).expect("a list");
    assert_eq!(items.map(Value::kind).collect::<Vec<_>>(), ["a number", "None", "a truth value"]);
    let tensor = root.get("tensor").and_then(Value::as_tensor).expect("a tensor");
    assert_eq!(
        (tensor.storage.len, tensor.shape.as_slice(), tensor.strides.as_slice()),
        (24, &[2, 3, 4][..], &[12, 4, 1][..])
    );
}

#[test]
fn mutated_pickles_never_panic() {
    for sound in [VALUES, MALICIOUS, POSTPROCESSING] {
        arbtest::arbtest(|source| {
            let mut bytes = sound.to_vec();
            for _ in 0..source.int_in_range(1..=8)? {
                let place = source.choose_index(bytes.len())?;
                bytes[place] = source.arbitrary()?;
            }
            if let Ok(document) = Document::parse(&bytes) {
                let _count = document.root().items().map_or(0, Iterator::count);
            }
            Ok(())
        });
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    arbtest::arbtest(|source| {
        let bytes: Vec<u8> = source.arbitrary()?;
        drop(Document::parse(&bytes));
        Ok(())
    });
}
