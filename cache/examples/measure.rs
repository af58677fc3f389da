//! Measures the store on this machine's disk: `cargo run --release -p nnflow-cache --example measure [FOLDER]`.
//!
//! Publishes 2,000 small results in one batch and in batches of one, looks them all up, loads a stat cache of
//! 10,000 files, and hashes a file of 1 GiB.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nnflow_cache::{Artifact, Batch, FileEntry, Key, Manifest, PortValue, Store, StoreError, hash_file};
use serde_json::{Value, json};

const RESULTS: usize = 2000;
const SOURCES: usize = 10_000;
const LARGE_MEBIBYTES: usize = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = parent.join(format!("nnflow-measure-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let outcome = measure(&folder);
    fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(folder: &Path) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let store = Store::open(folder.join("store"))?;
    report("make a store", start, 1);

    let start = Instant::now();
    let batch = store.batch();
    (0..RESULTS).try_for_each(|index| add_result(&batch, "batch", index))?;
    batch.commit()?;
    report("publish in one batch", start, RESULTS);

    let start = Instant::now();
    for index in 0..RESULTS / 10 {
        let batch = store.batch();
        add_result(&batch, "single", index)?;
        batch.commit()?;
    }
    report("publish one by one", start, RESULTS / 10);

    let keys: Vec<Key> = (0..RESULTS).map(|index| Key::of(&record("batch", index))).collect();
    for round in ["first", "second"] {
        let start = Instant::now();
        let hits = store.lookup_many(&keys)?.into_iter().filter_map(nnflow_cache::Lookup::hit).count();
        report(&format!("look up, {round} time ({hits} hits)"), start, RESULTS);
    }
    measure_sources(&store, folder)?;
    measure_hashing(folder)?;
    Ok(())
}

fn record(kind: &str, index: usize) -> Value {
    let parameters = json!({ "spacing": [1.0, 0.8, 0.8], "image_order": 3, "label_order": 1, "separate_axis": null });
    json!({ "stage": "resample", "version": 1, "kind": kind, "case": index, "parameters": parameters })
}

/// One small result as a run makes it by the thousand: two files and a manifest.
fn add_result(batch: &Batch<'_>, kind: &str, index: usize) -> Result<(), Box<dyn Error>> {
    let file = |name: &str| -> Result<FileEntry, StoreError> {
        let (digest, bytes) = batch.put_bytes(format!("{kind} {index} {name} ").repeat(40).as_bytes())?;
        Ok(FileEntry { name: name.to_owned(), digest, bytes, incidental: false })
    };
    let artifact = Artifact::new(vec![file("case.json")?, file("locations.json")?])?;
    let outputs = [("cases".to_owned(), PortValue::One(artifact))].into();
    batch.add_manifest(Manifest::new(record(kind, index), outputs));
    Ok(())
}

fn measure_sources(store: &Store, folder: &Path) -> Result<(), Box<dyn Error>> {
    let sources = folder.join("sources");
    fs::create_dir(&sources)?;
    let paths: Vec<PathBuf> = (0..SOURCES).map(|index| sources.join(index.to_string())).collect();
    for path in &paths {
        fs::write(path, path.as_os_str().as_encoded_bytes())?;
    }
    // Files of this moment are not remembered, so wait until they have settled.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let cache = store.stat_cache()?;
    let start = Instant::now();
    cache.digests_of(&paths).into_iter().collect::<Result<Vec<_>, _>>()?;
    report("digest small sources, unknown", start, SOURCES);
    let start = Instant::now();
    cache.save()?;
    report("save the stat cache", start, SOURCES);
    let start = Instant::now();
    let cache = store.stat_cache()?;
    report(&format!("load the stat cache ({} entries)", cache.len()), start, SOURCES);
    let start = Instant::now();
    cache.digests_of(&paths).into_iter().collect::<Result<Vec<_>, _>>()?;
    report("digest small sources, known", start, SOURCES);
    Ok(())
}

fn measure_hashing(folder: &Path) -> Result<(), Box<dyn Error>> {
    let path = folder.join("large");
    let mut file = fs::File::create(&path)?;
    let block: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    (0..LARGE_MEBIBYTES).try_for_each(|_| file.write_all(&block))?;
    drop(file);
    for _ in 0..3 {
        let start = Instant::now();
        hash_file(&path)?;
        report("hash 1 GiB", start, LARGE_MEBIBYTES);
    }
    Ok(())
}

fn report(what: &str, start: Instant, count: usize) {
    let milliseconds = start.elapsed().as_secs_f64() * 1000.0;
    #[expect(clippy::cast_precision_loss, reason = "a count of thousands")]
    let each = milliseconds / count as f64;
    println!("{what:<40} {milliseconds:>9.1} ms   {each:>8.4} ms each");
}
