//! temporary
#![allow(warnings)]
use std::io::Write;
use std::path::Path;
use nnflow_io::image::*;
fn hash(h: &mut u64, b: &[u8]) { for x in b { *h = (*h ^ u64::from(*x)).wrapping_mul(0x100000001b3); } }
fn describe(path: &Path, name: &str, tmp: &Path) -> String {
    let head = match read_header(path, name) { Ok(h) => format!("{} {:?} {}", h.channels, h.kind, h.scaled), Err(e) => format!("HERR {}", e.kind) };
    let image = match read_image(path, name) { Ok(i) => i, Err(e) => return format!("{head} | ERR {}", e.kind) };
    let mut h = 0xcbf29ce484222325u64;
    for v in image.voxels.iter() { hash(&mut h, &v.to_bits().to_le_bytes()); }
    let geo = serde_json::to_string(&image.geometry).unwrap();
    hash(&mut h, geo.as_bytes());
    let back: Geometry = match serde_json::from_str(&geo) { Ok(g) => g, Err(e) => return format!("{head} JSONERR {e}") };
    let d = image.geometry.shape;
    let labels = ndarray::Array3::from_shape_fn(d, |(z, y, x)| ((x + 3 * y + 7 * z) % 300) as u16);
    let p = tmp.join("out");
    let w1 = match write_labels(&p, labels.view(), &back, ".nii") { Ok(()) => { hash(&mut h, &std::fs::read(&p).unwrap()); "ok".into() } Err(e) => e.to_string() };
    let w2 = match write_image(&p, image.voxels.view(), &back, StoredKind::F32, ".nii") { Ok(()) => { hash(&mut h, &std::fs::read(&p).unwrap()); "ok".into() } Err(e) => e.to_string() };
    let own = Geometry { nifti: None, ..back };
    let w3 = match write_image(&p, image.voxels.view(), &own, image.kind, ".nii.gz") { Ok(()) => { hash(&mut h, &std::fs::read(&p).unwrap()); "ok".into() } Err(e) => e.to_string() };
    format!("{head} | {:?} {:?} {w1} {w2} {w3} {h:016x}", image.voxels.dim(), image.geometry.spacing)
}
fn main() {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap();
    let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
    if mode == "time" {
        let path = args.next().unwrap();
        for _ in 0..3 {
            let t = std::time::Instant::now();
            let i = read_image(Path::new(&path), "x.nii.gz").unwrap();
            println!("{:?} {:?}", t.elapsed(), i.voxels.dim());
        }
        return;
    }
    if mode == "raw" {
        let path = args.next().unwrap();
        for _ in 0..3 {
            let t = std::time::Instant::now();
            let mut s = flate2::bufread::MultiGzDecoder::new(std::io::BufReader::with_capacity(1<<18, std::fs::File::open(&path).unwrap()));
            let h = nifti::NiftiHeader::from_reader(&mut s).unwrap();
            let mut e = [0; 4]; std::io::Read::read_exact(&mut s, &mut e).unwrap();
            let raw = nifti::InMemNiftiVolume::from_reader(&mut s, &h).unwrap().into_raw_data();
            let v: Vec<f32> = raw.as_chunks::<2>().0.iter().map(|b| f32::from(i16::from_le_bytes(*b))).collect();
            println!("{:?} {}", t.elapsed(), v.len());
        }
        return;
    }
    if mode == "make" {
        let path = args.next().unwrap();
        let mut h = nnflow_io::image::Geometry::new([240, 512, 512], nnflow_kernels::geometry::Spacing::new([2.0, 0.8, 0.8]).unwrap());
        let mut s = 1u64;
        let v = ndarray::Array4::from_shape_fn((1, 240, 512, 512), |(_, z, y, x)| { s = s.wrapping_mul(6364136223846793005).wrapping_add(1); let n = ((s >> 60) + ((s >> 56) & 15)) as f32; ((x as f32 / 40.0).sin() * 500.0).floor() + n });
        write_image(Path::new(&path), v.view(), &h, StoredKind::I16, ".nii.gz").unwrap();
        return;
    }
    let root = Path::new("/work/shared/data/robustness_nifti");
    let manifest: serde_json::Value = nnflow_io::json::read(&root.join("manifest.json")).unwrap();
    let mut small = vec![];
    for e in manifest.as_array().unwrap() {
        let n = e["file"].as_str().unwrap();
        println!("{n}: {}", describe(&root.join(n), n, tmp.path()));
        if e["bytes"].as_u64().unwrap() < 50000 && !n.ends_with(".mgz") { small.push(n.to_owned()); }
    }
    // deterministic mutations
    let mut s = 88172645463325252u64;
    let mut next = move || { s ^= s << 13; s ^= s >> 7; s ^= s << 17; s };
    for round in 0..20000 {
        let n = &small[(next() % small.len() as u64) as usize];
        let mut b = std::fs::read(root.join(n)).unwrap();
        let name = Path::new(n).file_name().unwrap().to_str().unwrap();
        if b.is_empty() { continue; }
        if b.starts_with(&[0x1f, 0x8b]) { let mut o = vec![]; let r = std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&b[..]), &mut o); b = o; }
        if b.len() > 400_000 { continue; }
        let most = b.len().min(544);
        for _ in 0..1 + next() % 4 { let p = (next() % most as u64) as usize; b[p] = next() as u8; }
        if next() % 16 == 0 { let keep = (next() % 600) as usize; b.truncate(keep); }
        for f in std::fs::read_dir(tmp.path()).unwrap() { std::fs::remove_file(f.unwrap().path()).unwrap(); }
        let name = name.strip_suffix(".gz").unwrap_or(name);
        if let Some(s) = name.strip_suffix(".hdr") { std::fs::write(tmp.path().join(format!("{s}.img")), vec![7u8; 60000]).unwrap(); }
        let p = tmp.path().join(name);
        std::fs::write(&p, b).unwrap();
        println!("{round} {n}: {}", describe(&p, name, tmp.path()).replace('\n', " ").replace(tmp.path().to_str().unwrap(), ""));
    }
}
