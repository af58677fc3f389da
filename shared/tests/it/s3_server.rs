//! A server on the loopback address that speaks as much of S3 as a store of results needs, and can fail when it is told to.
//!
//! The protocol is that of the API reference of Amazon S3: objects, `If-None-Match`, listings in pages (version 2), removal one by
//! one and in bulk, uploads in parts. Signatures must be there and are not checked. Below `/public/` it is a plain web server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::SystemTime;

/// The only bucket.
pub(crate) const BUCKET: &str = "results";

/// A listing has so few entries a page that every larger one takes several.
const PAGE: usize = 50;

/// An object of the bucket.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) modified: SystemTime,
}

/// The objects, by name.
pub(crate) type Objects = BTreeMap<String, Stored>;

/// The parts of an upload, by number.
type Parts = BTreeMap<usize, Vec<u8>>;

/// The server; it stops when dropped.
pub(crate) struct S3Server {
    address: SocketAddr,
    shared: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

struct State {
    objects: Mutex<Objects>,
    uploads: Mutex<BTreeMap<String, Parts>>,
    requests: Mutex<Vec<String>>,
    connections: Mutex<Vec<TcpStream>>,
    next_upload: AtomicUsize,
    /// How many more requests are answered.
    left: AtomicI64,
    stopped: AtomicBool,
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Response {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl S3Server {
    /// Starts a server with an empty bucket.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("the socket has an address");
        let shared = Arc::new(State {
            objects: Mutex::default(),
            uploads: Mutex::default(),
            requests: Mutex::default(),
            connections: Mutex::default(),
            next_upload: AtomicUsize::new(0),
            left: AtomicI64::new(i64::MAX),
            stopped: AtomicBool::new(false),
        });
        let state = shared.clone();
        let accepting = std::thread::spawn(move || accept(&listener, &state));
        Self { address, shared, accepting: Some(accepting) }
    }

    /// The environment that leads a client here.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    /// The address of the objects for a client that knows nothing of S3.
    pub(crate) fn public_url(&self) -> String {
        format!("http://{}/public", self.address)
    }

    /// The objects, to be looked at or damaged.
    pub(crate) fn objects(&self) -> MutexGuard<'_, Objects> {
        self.shared.objects.lock().expect("no thread panicked")
    }

    /// The requests so far, such as `GET objects/ab/cd`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().expect("no thread panicked").clone()
    }

    /// Answers this many more requests and then breaks every connection.
    pub(crate) fn die_after(&self, requests: i64) {
        self.shared.left.store(requests, Ordering::SeqCst);
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("the server did not panic");
        }
        for connection in self.shared.connections.lock().expect("no thread panicked").drain(..) {
            // One that the client has closed cannot be closed again.
            connection.shutdown(Shutdown::Both).unwrap_or_default();
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming() {
        if state.stopped.load(Ordering::SeqCst) {
            return;
        }
        let stream = stream.expect("a connection can be accepted");
        let copy = stream.try_clone().expect("a socket can be cloned");
        state.connections.lock().expect("no thread panicked").push(copy);
        let state = state.clone();
        std::thread::spawn(move || serve(stream, &state));
    }
}

/// Answers what comes over a connection until it is closed, or the server is to be dead.
fn serve(stream: TcpStream, state: &State) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
    while let Some(request) = Request::read(&mut reader) {
        if state.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            break;
        }
        let response = state.answer(&request);
        if response.write(&stream, request.method == "HEAD").is_err() {
            break;
        }
    }
    stream.shutdown(Shutdown::Both).unwrap_or_default();
}

impl Request {
    /// The next request; `None` at the end of the connection.
    fn read(reader: &mut BufReader<TcpStream>) -> Option<Self> {
        let first = line(reader)?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = pairs.map(|(name, value)| (decoded(name), decoded(value))).collect();
        let mut headers = BTreeMap::new();
        loop {
            let header = line(reader)?;
            let Some((name, value)) = header.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some(Self { method, path: decoded(path), query, headers, body })
    }

    /// The name of the object, without the bucket.
    fn name(&self) -> Option<&str> {
        self.path.strip_prefix(&format!("/{BUCKET}")).map(|name| name.trim_start_matches('/'))
    }
}

impl Response {
    fn of(status: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    fn write(&self, mut stream: &TcpStream, without_body: bool) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {}\r\nContent-Length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = if without_body { &[] } else { self.body.as_slice() };
        stream.write_all(&[head.as_bytes(), b"\r\n", body].concat())
    }
}

impl State {
    fn answer(&self, request: &Request) -> Response {
        if let Some(name) = request.path.strip_prefix("/public/").filter(|_| request.method == "GET") {
            return self.get(name);
        }
        let signed = request.headers.get("authorization").is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 "));
        let Some(name) = request.name().filter(|_| signed) else { return failed("403 Forbidden", "AccessDenied") };
        self.requests.lock().expect("no thread panicked").push(format!("{} {name}", request.method));
        let has = |name: &str| request.query.contains_key(name);
        match request.method.as_str() {
            "GET" if name.is_empty() => self.list(request),
            "GET" | "HEAD" => self.get(name),
            "PUT" if has("partNumber") => self.put_part(request),
            "PUT" => self.put(name, request),
            "POST" if has("delete") => self.remove_many(&request.body),
            "POST" if has("uploads") => self.begin(name),
            "POST" if has("uploadId") => self.complete(name, request),
            "DELETE" if has("uploadId") => self.abort(request),
            "DELETE" => {
                self.objects().remove(name);
                Response::of("204 No Content", "")
            }
            _ => failed("501 Not Implemented", "NotImplemented"),
        }
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().expect("no thread panicked")
    }

    fn uploads(&self) -> MutexGuard<'_, BTreeMap<String, Parts>> {
        self.uploads.lock().expect("no thread panicked")
    }

    fn get(&self, name: &str) -> Response {
        let Some(stored) = self.objects().get(name).cloned() else { return failed("404 Not Found", "NoSuchKey") };
        let headers = vec![("ETag", "\"tag\"".to_owned()), ("Last-Modified", http_date(stored.modified))];
        Response { status: "200 OK", headers, body: stored.bytes }
    }

    fn put(&self, name: &str, request: &Request) -> Response {
        let mut objects = self.objects();
        if request.headers.get("if-none-match").is_some_and(|tag| tag == "*") && objects.contains_key(name) {
            return failed("412 Precondition Failed", "PreconditionFailed");
        }
        objects.insert(name.to_owned(), Stored { bytes: request.body.clone(), modified: SystemTime::now() });
        Response { headers: vec![("ETag", "\"tag\"".to_owned())], ..Response::of("200 OK", "") }
    }

    fn begin(&self, name: &str) -> Response {
        let upload = format!("upload-{}", self.next_upload.fetch_add(1, Ordering::SeqCst));
        self.uploads().insert(upload.clone(), Parts::new());
        let body = format!(
            "<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{name}</Key><UploadId>{upload}</UploadId>\
             </InitiateMultipartUploadResult>"
        );
        Response::of("200 OK", body)
    }

    fn put_part(&self, request: &Request) -> Response {
        let number = request.query["partNumber"].parse().expect("a part has a number");
        let mut uploads = self.uploads();
        let Some(parts) = request.query.get("uploadId").and_then(|upload| uploads.get_mut(upload)) else {
            return failed("404 Not Found", "NoSuchUpload");
        };
        parts.insert(number, request.body.clone());
        Response { headers: vec![("ETag", format!("\"{number}\""))], ..Response::of("200 OK", "") }
    }

    fn complete(&self, name: &str, request: &Request) -> Response {
        let Some(parts) = self.uploads().remove(&request.query["uploadId"]) else {
            return failed("404 Not Found", "NoSuchUpload");
        };
        let bytes = parts.into_values().flatten().collect();
        self.objects().insert(name.to_owned(), Stored { bytes, modified: SystemTime::now() });
        let body = format!(
            "<CompleteMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{name}</Key><ETag>\"tag\"</ETag>\
             </CompleteMultipartUploadResult>"
        );
        Response::of("200 OK", body)
    }

    fn abort(&self, request: &Request) -> Response {
        self.uploads().remove(&request.query["uploadId"]);
        Response::of("204 No Content", "")
    }

    fn list(&self, request: &Request) -> Response {
        let text = |name: &str| request.query.get(name).cloned().unwrap_or_default();
        let (prefix, after) = (text("prefix"), text("continuation-token"));
        let objects = self.objects();
        let all = objects.iter().filter(|(name, _)| name.starts_with(&prefix) && **name > after);
        let mut page: Vec<_> = all.take(PAGE + 1).collect();
        let is_truncated = page.len() > PAGE;
        page.truncate(PAGE);
        let next = page
            .last()
            .filter(|_| is_truncated)
            .map_or_else(String::new, |(name, _)| format!("<NextContinuationToken>{name}</NextContinuationToken>"));
        let contents: String = page.iter().map(|(name, stored)| entry(name, stored)).collect();
        let head = format!("<Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><KeyCount>{}</KeyCount>", page.len());
        Response::of(
            "200 OK",
            format!(
                "<ListBucketResult>{head}<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{is_truncated}</IsTruncated>{next}{contents}\
                 </ListBucketResult>"
            ),
        )
    }

    fn remove_many(&self, body: &[u8]) -> Response {
        let body = String::from_utf8_lossy(body).into_owned();
        let names = body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        let mut deleted = String::new();
        for name in names {
            self.objects().remove(name);
            deleted.push_str(&format!("<Deleted><Key>{name}</Key></Deleted>"));
        }
        Response::of("200 OK", format!("<DeleteResult>{deleted}</DeleteResult>"))
    }
}

fn entry(name: &str, stored: &Stored) -> String {
    let modified = jiff::Timestamp::try_from(stored.modified).expect("the time is of our days");
    format!(
        "<Contents><Key>{name}</Key><LastModified>{modified:.3}</LastModified><ETag>\"tag\"</ETag><Size>{}</Size>\
         <StorageClass>STANDARD</StorageClass></Contents>",
        stored.bytes.len()
    )
}

fn failed(status: &'static str, code: &str) -> Response {
    Response::of(status, format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"))
}

fn http_date(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).expect("the time is of our days");
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A line without its end; `None` at the end of the connection.
fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let length = reader.read_line(&mut line).ok()?;
    (length > 0).then(|| line.trim_end().to_owned())
}

/// A text with `%2F` as `/`, and so on.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).expect("names are valid Unicode")
}
