//! Files like those that PyTorch 2.11 writes.

use std::io::{Cursor, Write};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;
use crate::pickle::Pickled;

/// `data.pkl` of `torch.save({'weights': OrderedDict(…), 'best': np.float64(0.5), 'epoch': np.int64(-3), 'axes': (0, 1),
/// 'device': torch.device('cpu')})`; the tensors are views of `arange(6)` as `[2, 3]`, and others of each type.
const PICKLE_OF_TORCH: &[u8] =
    b"\x80\x02}q\x00(X\x07\x00\x00\x00weightsq\x01ccollections\nOrderedDict\nq\x02)Rq\x03(X\x05\x00\x00\x00wholeq\
    \x04ctorch._utils\n_rebuild_tensor_v2\nq\x05((X\x07\x00\x00\x00storageq\x06ctorch\nFloatStorage\nq\x07X\x01\
    \x00\x00\x000q\x08X\x03\x00\x00\x00cpuq\x09K\x06tq\nQK\x00K\x02K\x03\x86q\x0bK\x03K\x01\x86q\x0c\x89h\x02)Rq\
    \x0dtq\x0eRq\x0fX\n\x00\x00\x00transposedq\x10h\x05((h\x06h\x07h\x08h\x09K\x06tq\x11QK\x00K\x03K\x02\x86q\
    \x12K\x01K\x03\x86q\x13\x89h\x02)Rq\x14tq\x15Rq\x16X\x04\x00\x00\x00tailq\x17h\x05((h\x06h\x07h\x08h\x09K\
    \x06tq\x18QK\x04K\x02\x85q\x19K\x01\x85q\x1a\x89h\x02)Rq\x1btq\x1cRq\x1dX\x04\x00\x00\x00halfq\x1eh\x05((h\
    \x06ctorch\nHalfStorage\nq\x1fX\x01\x00\x00\x001q h\x09K\x02tq!QK\x00K\x02\x85q\"K\x01\x85q#\x89h\x02)Rq$tq%\
    Rq&X\x05\x00\x00\x00brainq'h\x05((h\x06ctorch\nBFloat16Storage\nq(X\x01\x00\x00\x002q)h\x09K\x01tq*QK\x00K\
    \x01\x85q+K\x01\x85q,\x89h\x02)Rq-tq.Rq/X\x09\x00\x00\x00parameterq0ctorch._utils\n_rebuild_parameter\nq1h\
    \x05((h\x06h\x07X\x01\x00\x00\x003q2h\x09K\x01tq3QK\x00K\x01\x85q4K\x01\x85q5\x89h\x02)Rq6tq7Rq8\x88h\x02)Rq\
    9\x87q:Rq;X\x06\x00\x00\x00scalarq<h\x05((h\x06h\x07X\x01\x00\x00\x004q=h\x09K\x01tq>QK\x00))\x89h\x02)Rq?tq\
    @RqAX\x0d\x00\x00\x00whole_numbersqBh\x05((h\x06ctorch\nLongStorage\nqCX\x01\x00\x00\x005qDh\x09K\x02tqEQK\
    \x00K\x02\x85qFK\x01\x85qG\x89h\x02)RqHtqIRqJuX\x04\x00\x00\x00bestqKcnumpy._core.multiarray\nscalar\nqLcnum\
    py\ndtype\nqMX\x02\x00\x00\x00f8qN\x89\x88\x87qORqP(K\x03X\x01\x00\x00\x00<qQNNNJ\xff\xff\xff\xffJ\xff\xff\
    \xff\xffK\x00tqRbc_codecs\nencode\nqSX\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\xc3\xa0?qTX\x06\x00\x00\x00la\
    tin1qU\x86qVRqW\x86qXRqYX\x05\x00\x00\x00epochqZhLhMX\x02\x00\x00\x00i8q[\x89\x88\x87q\\Rq](K\x03hQNNNJ\xff\
    \xff\xff\xffJ\xff\xff\xff\xffK\x00tq^bhSX\x10\x00\x00\x00\xc3\xbd\xc3\xbf\xc3\xbf\xc3\xbf\xc3\xbf\xc3\xbf\
    \xc3\xbf\xc3\xbfq_hU\x86q`Rqa\x86qbRqcX\x04\x00\x00\x00axesqdK\x00K\x01\x86qeX\x06\x00\x00\x00deviceqfctorch\
    \ndevice\nqgX\x03\x00\x00\x00cpuqh\x85qiRqju.";

/// The storages of the same file.
const STORAGES: [&[u8]; 6] = [
    &[0, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64, 0, 0, 128, 64, 0, 0, 160, 64],
    &[0, 62, 0, 192],
    &[128, 62],
    &[0, 0, 64, 64],
    &[0, 0, 224, 64],
    &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
];

fn file_with(pickle: &[u8], storages: &[&[u8]], more: &[(&str, &[u8])]) -> Result<TorchFile, TorchFileError> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut add = |name: String, bytes: &[u8]| {
        writer.start_file(name, options).expect("starts");
        writer.write_all(bytes).expect("writes");
    };
    add(format!("archive/{PICKLE}"), pickle);
    storages.iter().enumerate().for_each(|(index, bytes)| add(format!("archive/data/{index}"), bytes));
    more.iter().for_each(|(name, bytes)| add((*name).to_owned(), bytes));
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("checkpoint_final.pth");
    fs_err::write(&path, writer.finish().expect("finishes").into_inner()).expect("writes");
    TorchFile::open(&path)
}

fn torch() -> TorchFile {
    file_with(PICKLE_OF_TORCH, &STORAGES, &[("archive/byteorder", b"little")]).expect("PyTorch wrote it")
}

fn floats(file: &TorchFile, name: &str) -> Result<Vec<f32>, TorchFileError> {
    let weights = file.root().get("weights").expect("there");
    file.floats(weights.get(name).and_then(Value::as_tensor).expect("a tensor"))
}

#[test]
fn tensors_of_each_form_and_type_come_out() {
    let file = torch();
    let expected: [(&str, &[f32]); 7] = [
        ("whole", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        ("transposed", &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
        ("tail", &[4.0, 5.0]),
        ("half", &[1.5, -2.0]),
        ("brain", &[0.25]),
        ("parameter", &[3.0]),
        ("scalar", &[7.0]),
    ];
    for (name, values) in expected {
        assert_eq!(floats(&file, name).expect("floats"), values, "{name}");
    }
}

#[test]
fn numbers_of_numpy_come_out() {
    let file = torch();
    assert_eq!(file.root().get("best").and_then(Value::as_f64), Some(0.5));
    assert_eq!(file.root().get("epoch").and_then(Value::as_i64), Some(-3));
}

#[test]
fn whole_numbers_are_no_weights() {
    let error = floats(&torch(), "whole_numbers").expect_err("int64").to_string();
    assert!(error.ends_with("it has whole numbers, expected floats"), "{error}");
}

#[test]
fn a_storage_shorter_than_declared_is_refused() {
    let mut storages = STORAGES;
    storages[0] = &STORAGES[0][..20];
    let file = file_with(PICKLE_OF_TORCH, &storages, &[]).expect("the pickle is whole");
    let error = floats(&file, "tail").expect_err("a number is missing").to_string();
    assert!(error.ends_with("storage `0` has 20 bytes, expected 6 times 4"), "{error}");
}

fn one_tensor(shape: &str, strides: &str, offset: u8) -> Result<Vec<f32>, TorchFileError> {
    let mut pickle =
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n".to_vec();
    pickle.extend(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK");
    pickle.push(offset);
    for numbers in [shape, strides] {
        pickle.push(b'(');
        for number in numbers.split_whitespace() {
            pickle.extend([0x8A, 8]);
            pickle.extend(number.parse::<i64>().expect("a number").to_le_bytes());
        }
        pickle.push(b't');
    }
    pickle.extend(b"tR.");
    let file = file_with(&pickle, &STORAGES[..1], &[])?;
    file.floats(file.root().as_tensor().expect("a tensor"))
}

#[test]
fn a_tensor_that_leaves_its_storage_is_refused() {
    for (shape, strides, offset) in
        [("2 3", "3 1", 1), ("7", "1", 0), ("2", "6", 0), ("2 2", "9223372036854775807 1", 0)]
    {
        let error = one_tensor(shape, strides, offset).expect_err("it leaves its storage").to_string();
        assert!(error.contains("does not lie within the 6 elements"), "{error}");
    }
    assert_eq!(one_tensor("2 3", "3 1", 0).expect("it fits").len(), 6);
}

#[test]
fn a_tensor_of_terabytes_out_of_one_number_is_refused() {
    one_tensor("1099511627776", "0", 0).expect_err("stride 0 repeats one number");
    one_tensor("4294967296 4294967296", "0 0", 0).expect_err("the product has no 64 bits");
}

#[test]
fn a_negative_extent_is_refused() {
    assert!(matches!(one_tensor("-1", "1", 0), Err(TorchFileError::Pickle { .. })));
}

#[test]
fn another_order_of_bytes_is_refused() {
    let error = file_with(PICKLE_OF_TORCH, &STORAGES, &[("archive/byteorder", b"big")]).expect_err("big").to_string();
    assert!(error.ends_with("expected `little`, found `big`"), "{error}");
}

#[test]
fn a_zip_without_pickle_is_no_file_of_pytorchs() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model.pth");
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("code/data.pkl.txt", SimpleFileOptions::default()).expect("starts");
    fs_err::write(&path, writer.finish().expect("finishes").into_inner()).expect("writes");
    assert!(matches!(TorchFile::open(&path), Err(TorchFileError::NoPickle { found: 0, .. })));
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (first, second) = (folder.path().join("first.pth"), folder.path().join("second.pth"));
    let tensor = |storage: &str| Pickled::Tensor { storage: storage.to_owned(), shape: vec![3, 2] };
    let value = Pickled::Dict(vec![("a".to_owned(), tensor("0")), ("alias".to_owned(), tensor("0"))]);
    let storage = FloatStorage { key: "0", bytes: STORAGES[0] };
    for path in [&first, &second] {
        write_torch_file(path, &value, &[storage]).expect("writes");
    }
    let file = TorchFile::open(&first).expect("opens");
    for name in ["a", "alias"] {
        let tensor = file.root().get(name).and_then(Value::as_tensor).expect("a tensor");
        assert_eq!(file.floats(tensor).expect("floats"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
    assert_eq!(fs_err::read(first).expect("reads"), fs_err::read(second).expect("reads"), "the bytes are the same");
}

#[test]
fn mutated_pickles_of_tensors_never_panic() {
    arbtest::arbtest(|source| {
        let mut pickle = PICKLE_OF_TORCH.to_vec();
        for _ in 0..source.int_in_range(1..=6)? {
            let place = source.choose_index(pickle.len())?;
            pickle[place] = source.arbitrary()?;
        }
        if let Ok(file) = file_with(&pickle, &STORAGES, &[]) {
            let tensors = file.root().get("weights").and_then(Value::entries).into_iter().flatten();
            for tensor in tensors.filter_map(|(_, value)| value.as_tensor()) {
                drop(file.floats(tensor));
            }
        }
        Ok(())
    });
}
