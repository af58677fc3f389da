//! Against a server of S3 that others wrote: moto, a simulation of Amazon's services, where a Python with it is at hand.
//!
//! `pip install 'moto[server]'` brings it; `NNFLOW_MOTO_PYTHON` names the Python, `python3` by default.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nnflow_shared::{Address, Mode, SharedGcOptions, SharedStore};

use crate::support::Machine;

const BUCKET: &str = "results";

/// A server of moto's with one bucket; it stops when dropped.
struct Moto {
    child: Child,
    address: String,
}

impl Moto {
    /// `None` where there is no moto.
    fn start() -> Option<Self> {
        let python = std::env::var("NNFLOW_MOTO_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let has_moto = Command::new(&python).args(["-c", "import moto, flask"]).stderr(Stdio::null()).status();
        if !has_moto.is_ok_and(|status| status.success()) {
            eprintln!("skipped: `{python}` has no moto; `pip install 'moto[server]'` brings it");
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let port = address.rsplit(':').next().unwrap();
        let mut command = Command::new(&python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", port]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("Running on")), "moto ended before it listened");
        // Whoever does not read what the server says stops it.
        std::thread::spawn(move || lines.for_each(drop));
        let moto = Self { child, address };
        moto.make_bucket();
        Some(moto)
    }

    fn make_bucket(&self) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let request = format!("PUT /{BUCKET} HTTP/1.0\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }

    fn open(&self, mode: Mode) -> SharedStore {
        let variables = [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ];
        let address: Address = format!("s3://{BUCKET}/group").parse().unwrap();
        SharedStore::with_variables(address, mode, variables.map(|(name, value)| (name.to_owned(), value))).unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn another_server_takes_gives_and_forgets_results() {
    let Some(moto) = Moto::start() else { return };
    let (here, rival, there) = (Machine::new(), Machine::new(), Machine::new());
    let large: Vec<u8> = (0..20_000_000_u32).map(|place| (place % 253) as u8).collect();
    let mut keys: Vec<_> = (0..60).map(|number| here.publish(&number.to_string(), &[&[number as u8]])).collect();
    keys.push(here.publish("large", &[&large, b"log"]));
    let report = moto.open(Mode::ReadWrite).push(&here.store, &keys).unwrap();
    assert_eq!((report.pushed, report.present, report.unpushed.len()), (61, 0, 0));
    // The first publisher wins here as well.
    let contested = rival.publish("large", &[b"another result"]);
    assert_eq!(moto.open(Mode::ReadWrite).push(&rival.store, &[contested]).unwrap().present, 1);
    let shared = moto.open(Mode::ReadOnly);
    assert!(shared.fetch(&there.store, &keys).iter().all(Option::is_some), "{:?}", shared.take_warnings());
    assert_eq!(there.contents(&contested), here.contents(&contested));
    assert!(there.store.verify(false).unwrap().is_clean());
    let options = SharedGcOptions {
        max_age: Some(Duration::ZERO),
        grace: Duration::ZERO,
        pins: keys[..2].iter().copied().collect(),
        ..SharedGcOptions::default()
    };
    // Times of S3 are whole seconds, of which the last one may not have passed: what is kept is what is pinned, or more.
    let collected = moto.open(Mode::ReadWrite).gc(&options).unwrap();
    assert_eq!(collected.kept_results + collected.dropped_results, 61);
    let kept = moto.open(Mode::ReadOnly).fetch(&Machine::new().store, &keys[..2]);
    assert!(kept.iter().all(Option::is_some));
}
