use super::*;

fn file(name: &str, content: &str) -> FileEntry {
    FileEntry {
        name: name.into(),
        digest: hash_bytes(content.as_bytes()),
        bytes: content.len() as u64,
        incidental: false,
    }
}

fn artifact(files: &[FileEntry]) -> Artifact {
    Artifact::new(files.to_vec()).unwrap()
}

fn manifest() -> Manifest {
    let one = PortValue::One(artifact(&[file("plans.json", "{}")]));
    let items = PortValue::Items([("case_1".to_owned(), artifact(&[file("image.nna", "voxels")]))].into());
    let outputs = [("plan".to_owned(), one), ("cases".to_owned(), items)].into();
    Manifest::new(json!({ "stage": "resample", "version": 1 }), outputs)
}

#[test]
fn an_artifact_has_one_digest_whatever_the_order_of_its_files() {
    let (a, b) = (file("a", "1"), file("b", "2"));
    assert_eq!(artifact(&[a.clone(), b.clone()]).digest(), artifact(&[b, a]).digest());
}

#[test]
fn an_incidental_file_is_no_part_of_the_digest() {
    let log = FileEntry { incidental: true, ..file("train.log", "10:31") };
    assert_eq!(artifact(&[file("weights", "w"), log]).digest(), artifact(&[file("weights", "w")]).digest());
}

#[test]
fn the_name_of_a_file_is_part_of_the_digest() {
    assert_ne!(artifact(&[file("a", "1")]).digest(), artifact(&[file("b", "1")]).digest());
}

#[test]
fn the_name_of_an_item_is_part_of_the_digest() {
    let items = |name: &str| PortValue::Items([(name.to_owned(), artifact(&[file("a", "1")]))].into());
    assert_ne!(items("case_1").digest(), items("case_2").digest());
}

#[test]
fn the_port_digest_never_changes_between_releases() {
    // Computed with the Python package `blake3` 1.0.11 from the canonical texts.
    let port = PortValue::One(artifact(&[file("a", "1")]));
    assert_eq!(port.digest().to_string(), "96fd39200b4e0747ca4ab039ed4df351799e5acd5dee35f6f896b5d346cd3fa3");
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    for name in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/", "a\\b", "a\0b"] {
        let expected = NameError::Unsafe { name: name.to_owned() };
        assert_eq!(Artifact::new(vec![file(name, "x")]), Err(expected), "{name:?}");
    }
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let twice = Artifact::new(vec![file("a", "1"), file("a", "2")]);
    assert_eq!(twice, Err(NameError::Twice { name: "a".into() }));
}

#[test]
fn a_file_is_found_by_its_name() {
    let both = artifact(&[file("b", "2"), file("a", "1")]);
    assert_eq!((both.file("a"), both.file("c")), (Some(&file("a", "1")), None));
}

#[test]
fn a_manifest_reads_back_as_it_was_written() {
    assert_eq!(Manifest::from_bytes(&manifest().to_bytes()), Ok(manifest()));
}

#[test]
fn the_file_of_a_manifest_is_plain_json() {
    let value: Value = serde_json::from_slice(&manifest().to_bytes()).unwrap();
    assert_eq!(value["outputs"]["cases"]["items"]["case_1"]["files"][0]["name"], "image.nna");
}

#[test]
fn a_manifest_cut_at_any_byte_is_refused() {
    let bytes = manifest().to_bytes();
    for length in 0..bytes.len() {
        assert!(Manifest::from_bytes(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn a_manifest_with_any_flipped_bit_is_refused() {
    let bytes = manifest().to_bytes();
    for bit in 0..8 * bytes.len() {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Manifest::from_bytes(&damaged).is_err(), "bit {bit}");
    }
}

/// The text of a manifest's file with a valid checksum.
fn sealed(text: &str) -> Vec<u8> {
    let checksum = hash_bytes(text.as_bytes());
    format!("{text},\"checksum\":\"{checksum}\"}}\n").into_bytes()
}

#[test]
fn another_version_is_named() {
    let sealed = sealed(r#"{"version":9,"contents":[]"#);
    assert_eq!(Manifest::from_bytes(&sealed), Err(ManifestError::Version { found: 9 }));
}

#[test]
fn a_manifest_with_a_name_that_leads_out_is_refused() {
    let bytes = manifest().to_bytes();
    let text = String::from_utf8(bytes).unwrap();
    let (text, _) = text.rsplit_once(",\"checksum\"").unwrap();
    let evil = sealed(&text.replace("image.nna", "../../.bashrc"));
    assert!(matches!(Manifest::from_bytes(&evil), Err(ManifestError::Format { .. })));
}

#[test]
fn any_bytes_are_refused_without_a_panic() {
    arbtest::arbtest(|u| {
        let text: String = u.arbitrary()?;
        assert!(Manifest::from_bytes(&sealed(&text)).is_err());
        Ok(())
    });
}

#[test]
fn a_transient_manifest_needs_no_objects() {
    let transient = manifest().transient();
    assert_eq!((transient.objects().count(), transient.files().count()), (0, 2));
}
