//! Results go from one machine to another.

use std::collections::BTreeMap;

use nnflow_cache::{Artifact, FileEntry, hash_bytes};
use nnflow_shared::{Address, Mode, SharedError, SharedStore, Tally};

use crate::support::{Machine, Place, manifest, manifest_of, object};

/// More than two pieces of an upload.
const LARGE: usize = 20 * 1024 * 1024;

fn files(contents: &[&[u8]]) -> BTreeMap<String, Vec<u8>> {
    contents.iter().enumerate().map(|(number, content)| (format!("file-{number}"), content.to_vec())).collect()
}

#[test]
fn what_one_machine_pushes_another_one_fetches() {
    for place in Place::each() {
        let (here, there) = (Machine::new(), Machine::new());
        let key = here.publish("train", &[b"weights", b"log", b""]);
        let report = place.open(Mode::ReadWrite).push(&here.store, &[key]).unwrap();
        assert_eq!((report.pushed, report.present, report.unpushed.len()), (1, 0, 0));
        let shared = place.open(Mode::ReadOnly);
        let fetched = shared.fetch(&there.store, &[key]);
        assert_eq!(fetched[0], here.store.lookup(&key).unwrap().hit());
        assert_eq!(there.contents(&key), Some(files(&[b"weights", b"log", b""])));
        assert_eq!(shared.tally(), Tally { fetched: 1, fetched_bytes: 10, pushed: 0, pushed_bytes: 0 });
        assert_eq!(shared.take_warnings(), Vec::<String>::new());
        assert!(there.store.verify(false).unwrap().is_clean());
    }
}

#[test]
fn a_large_file_goes_in_pieces_and_comes_whole() {
    let content: Vec<u8> = (0..LARGE).map(|place| (place % 251) as u8).collect();
    for place in Place::each() {
        let (here, there) = (Machine::new(), Machine::new());
        let key = here.publish("large", &[&content]);
        place.open(Mode::ReadWrite).push(&here.store, &[key]).unwrap();
        place.open(Mode::ReadOnly).fetch(&there.store, &[key]);
        assert_eq!(there.contents(&key), Some(files(&[&content])));
    }
}

#[test]
fn many_results_come_in_the_order_of_their_keys() {
    for place in Place::each() {
        let (here, there) = (Machine::new(), Machine::new());
        let mut keys: Vec<_> = (0..300).map(|number| here.publish(&number.to_string(), &[&[number as u8]])).collect();
        let absent = Machine::new().publish("absent", &[b"x"]);
        place.open(Mode::ReadWrite).push(&here.store, &keys).unwrap();
        keys.insert(17, absent);
        let fetched = place.open(Mode::ReadOnly).fetch(&there.store, &keys);
        let found: Vec<_> = fetched.iter().map(|manifest| manifest.as_ref().map(nnflow_cache::Manifest::key)).collect();
        let expected: Vec<_> = keys.iter().map(|key| Some(*key).filter(|key| *key != absent)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn an_object_that_is_there_is_not_sent_or_fetched_again() {
    let place = Place::s3();
    let (here, there) = (Machine::new(), Machine::new());
    let first = here.publish("first", &[b"common"]);
    let second = here.publish("second", &[b"common"]);
    let shared = place.open(Mode::ReadWrite);
    shared.push(&here.store, &[first]).unwrap();
    shared.push(&here.store, &[second]).unwrap();
    there.store.put_bytes(b"common").unwrap();
    shared.fetch(&there.store, &[first, second]);
    let object = format!("group/nnflow/{}", object(&hash_bytes(b"common")));
    let moved = |request: &String| *request == format!("PUT {object}") || *request == format!("GET {object}");
    assert_eq!(place.server().requests().into_iter().filter(moved).collect::<Vec<_>>(), [format!("PUT {object}")]);
}

#[test]
fn a_result_whose_bytes_are_not_kept_is_known_elsewhere() {
    let place = Place::s3();
    let (here, there) = (Machine::new(), Machine::new());
    let file = FileEntry { name: "image".to_owned(), digest: hash_bytes(b"image"), bytes: 5, incidental: false };
    let transient = manifest("normalize", Artifact::new(vec![file]).unwrap()).transient();
    here.store.publish(transient.clone()).unwrap();
    let shared = place.open(Mode::ReadWrite);
    shared.push(&here.store, &[transient.key()]).unwrap();
    assert_eq!(shared.fetch(&there.store, &[transient.key()]), [Some(transient)]);
}

#[test]
fn of_two_publishers_of_a_key_the_first_one_wins() {
    for place in Place::each() {
        let (first, second, third) = (Machine::new(), Machine::new(), Machine::new());
        let key = first.publish("train", &[b"weights of the first"]);
        second.publish("train", &[b"weights of the second"]);
        place.open(Mode::ReadWrite).push(&first.store, &[key]).unwrap();
        let report = place.open(Mode::ReadWrite).push(&second.store, &[key]).unwrap();
        assert_eq!((report.pushed, report.present), (0, 1));
        place.open(Mode::ReadOnly).fetch(&third.store, &[key]);
        assert_eq!(third.contents(&key), Some(files(&[b"weights of the first"])));
    }
}

#[test]
fn many_publishers_of_the_same_keys_at_once_leave_one_whole_result_each() {
    for place in Place::each() {
        let machines: Vec<Machine> = (0..4).map(|_| Machine::new()).collect();
        let publish = |(number, machine): (usize, &Machine)| {
            let name = |result: usize| format!("result {result}");
            let own = [number as u8; 3];
            (0..20).map(|result| machine.publish(&name(result), &[&own, b"common"])).collect::<Vec<_>>()
        };
        let keys: Vec<_> = machines.iter().enumerate().map(publish).collect();
        std::thread::scope(|scope| {
            for (machine, keys) in machines.iter().zip(&keys) {
                let shared = place.open(Mode::ReadWrite);
                scope.spawn(move || shared.push(&machine.store, keys).unwrap());
            }
        });
        let reader = Machine::new();
        let shared = place.open(Mode::ReadOnly);
        assert!(shared.fetch(&reader.store, &keys[0]).iter().all(Option::is_some), "{:?}", shared.take_warnings());
        assert!(reader.store.verify(false).unwrap().is_clean());
    }
}

#[test]
fn the_folder_of_a_local_store_can_be_read_as_a_shared_one() {
    let (here, there) = (Machine::new(), Machine::new());
    let key = here.publish("train", &[b"weights"]);
    let shared = SharedStore::new(Address::Folder(here.store.root().to_owned()), Mode::ReadOnly).unwrap();
    shared.fetch(&there.store, &[key]);
    assert_eq!(there.contents(&key), Some(files(&[b"weights"])));
}

#[test]
fn what_is_only_read_is_never_written() {
    for place in Place::each() {
        let (here, there) = (Machine::new(), Machine::new());
        let key = here.publish("train", &[b"weights"]);
        place.open(Mode::ReadWrite).push(&here.store, &[key]).unwrap();
        let before = place.names();
        let shared = place.open(Mode::ReadOnly);
        let new = there.publish("new", &[b"new"]);
        shared.fetch(&there.store, &[key]);
        let error = shared.push(&there.store, &[new]).unwrap_err();
        assert!(matches!(error, SharedError::ReadOnly { .. }), "{error}");
        assert_eq!(place.names(), before);
    }
}

#[test]
fn a_plain_web_server_can_be_read_from() {
    let place = Place::s3();
    let (here, there) = (Machine::new(), Machine::new());
    let key = here.publish("train", &[b"weights"]);
    place.open(Mode::ReadWrite).push(&here.store, &[key]).unwrap();
    let address = format!("{}/group/nnflow", place.server().public_url()).parse().unwrap();
    let shared = SharedStore::with_variables(address, Mode::ReadOnly, []).unwrap();
    let absent = Machine::new().publish("absent", &[b"x"]);
    assert!(shared.fetch(&there.store, &[key, absent])[1].is_none());
    assert_eq!(there.contents(&key), Some(files(&[b"weights"])));
    assert_eq!(shared.take_warnings(), Vec::<String>::new());
}

#[test]
fn what_was_stopped_asks_nothing_any_more() {
    let place = Place::s3();
    let here = Machine::new();
    let key = here.publish("train", &[b"weights"]);
    let shared = place.open(Mode::ReadWrite);
    shared.stop();
    assert!(shared.push(&here.store, &[key]).is_err());
    assert_eq!(shared.fetch(&Machine::new().store, &[key]), [None]);
    assert_eq!(place.server().requests(), Vec::<String>::new());
}

#[test]
fn a_web_server_is_only_read_from() {
    let address: Address = "http://localhost/results".parse().unwrap();
    let error = SharedStore::new(address, Mode::ReadWrite).unwrap_err();
    assert_eq!(error.to_string(), "the shared store `http://localhost/results` is only read from");
}

#[test]
fn a_pushed_store_says_its_format_and_holds_nothing_else() {
    for place in Place::each() {
        let here = Machine::new();
        let key = here.publish("train", &[b"weights"]);
        place.open(Mode::ReadWrite).push(&here.store, &[key]).unwrap();
        let expected = ["VERSION".to_owned(), manifest_of(&key), object(&hash_bytes(b"weights"))];
        assert_eq!(place.names(), expected);
        assert_eq!(place.read("VERSION"), Some(b"1\n".to_vec()));
    }
}
