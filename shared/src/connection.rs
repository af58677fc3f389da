//! The client of a shared store: how one is made of an address, and the few things that it is asked to do.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use nnflow_cache::{Digest, Key, STORE_VERSION};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ClientOptions, Error, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload, RetryConfig,
};
use tokio::runtime::Runtime;

use crate::address::{Address, Bucket};
use crate::error::SharedError;
use crate::store::Mode;

/// How long nothing may be heard of a store while it is asked for something small, or for the next piece of a file.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a server may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How often something is asked again after an answer such as "slow down".
const MOST_RETRIES: usize = 4;

/// The longest pause before something is asked again.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// After this time, nothing is asked again.
const RETRY_WITHIN: Duration = Duration::from_secs(30);

/// Threads that wait for the network.
const NETWORK_THREADS: usize = 2;

const VERSION_FILE: &str = "VERSION";

/// The environment variables that a client may look at.
pub(crate) type Variables = Vec<(String, String)>;

/// A client, ready to be asked.
pub(crate) struct Connection {
    runtime: Runtime,
    objects: Arc<dyn ObjectStore>,
    /// Ends with `/` unless it is empty.
    prefix: String,
    address: String,
}

/// Something in a listing.
pub(crate) struct Listed {
    pub(crate) path: Path,
    /// The digest that its name stands for; `None` for what does not belong into a store.
    pub(crate) digest: Option<Digest>,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

impl Connection {
    /// Sets up a client; asks nothing yet.
    pub(crate) fn open(address: &Address, mode: Mode, variables: &Variables) -> Result<Self, SharedError> {
        let named = address.to_string();
        let setup = |message: String| SharedError::Setup { address: named.clone(), message };
        // Fails if something else of this process has chosen a provider already, which is as good.
        rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let runtime = threads.worker_threads(NETWORK_THREADS).thread_name("nnflow-shared").enable_all().build();
        let runtime = runtime.map_err(|error| setup(error.to_string()))?;
        let (objects, prefix) = client(address, mode, variables).map_err(|error| setup(error.to_string()))?;
        let prefix = if prefix.is_empty() { prefix } else { format!("{prefix}/") };
        Path::parse(&prefix).map_err(|error| setup(error.to_string()))?;
        Ok(Self { runtime, objects, prefix, address: named })
    }

    /// Waits for something asynchronous.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Where an object lies.
    pub(crate) fn object(&self, digest: &Digest) -> Path {
        self.place("objects", digest, "")
    }

    /// Where the manifest of a key lies.
    pub(crate) fn manifest(&self, key: &Key) -> Path {
        self.place("manifests", key.digest(), ".json")
    }

    fn place(&self, folder: &str, digest: &Digest, ending: &str) -> Path {
        let hex = digest.to_hex();
        let (leaf, rest) = hex.split_at(2);
        self.path(&format!("{folder}/{leaf}/{rest}{ending}"))
    }

    fn path(&self, below: &str) -> Path {
        Path::parse(format!("{}{below}", self.prefix)).expect("invariant: the prefix was checked, the rest is plain")
    }

    /// The beginning of a file; `None` if it is not there.
    pub(crate) async fn get(&self, path: &Path) -> Result<Option<GetResult>, SharedError> {
        self.if_present("read", self.objects.get(path)).await
    }

    /// A small file as a whole; `None` if it is not there.
    pub(crate) async fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, SharedError> {
        let Some(found) = self.get(path).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        let mut pieces = found.into_stream();
        while let Some(piece) = self.next(&mut pieces).await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(bytes))
    }

    /// The next piece of a file that is being read.
    pub(crate) async fn next<T>(
        &self,
        pieces: &mut BoxStream<'static, object_store::Result<T>>,
    ) -> Result<Option<T>, SharedError> {
        self.patiently("read", async { pieces.next().await.transpose() }).await
    }

    /// How many bytes a file has; `None` if it is not there.
    pub(crate) async fn length(&self, path: &Path) -> Result<Option<u64>, SharedError> {
        let found = self.if_present("look up", self.objects.head(path)).await?;
        Ok(found.map(|found| found.size))
    }

    /// Writes a small file, whatever was there.
    pub(crate) async fn put(&self, path: &Path, bytes: Vec<u8>) -> Result<(), SharedError> {
        let put = self.objects.put(path, PutPayload::from(bytes));
        self.patiently("write", put).await.map(|_| ())
    }

    /// Writes a small file unless there is one; `false` if there is.
    pub(crate) async fn put_if_absent(&self, path: &Path, bytes: Vec<u8>) -> Result<bool, SharedError> {
        let put = self.objects.put_opts(path, PutPayload::from(bytes.clone()), PutMode::Create.into());
        let done = async {
            match put.await {
                Ok(_) => Ok(Some(true)),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Some(false)),
                Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        if let Some(done) = self.patiently("write", done).await? {
            return Ok(done);
        }
        // A server that cannot put if absent: of two publishers at the same moment the last one wins, which is harmless.
        match self.length(path).await? {
            Some(_) => Ok(false),
            None => self.put(path, bytes).await.map(|()| true),
        }
    }

    /// Begins to write a large file.
    pub(crate) async fn begin(&self, path: &Path) -> Result<Box<dyn object_store::MultipartUpload>, SharedError> {
        self.patiently("write", self.objects.put_multipart(path)).await
    }

    /// What lies below a folder of the store.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Listed>, SharedError> {
        let folder = self.path(folder);
        let mut entries = self.objects.list(Some(&folder));
        let mut found = Vec::new();
        while let Some(entry) = self.next(&mut entries).await? {
            found.push(Listed::of(&folder, entry));
        }
        Ok(found)
    }

    /// Removes files; those that are gone already are no error.
    pub(crate) async fn remove(&self, paths: Vec<Path>) -> Result<(), SharedError> {
        let paths = futures_util::stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut removed = self.objects.delete_stream(paths);
        loop {
            let one = async {
                match removed.next().await.transpose() {
                    Err(Error::NotFound { path, .. }) => Ok(Some(Path::from(path))),
                    other => other,
                }
            };
            if self.patiently("remove", one).await?.is_none() {
                return Ok(());
            }
        }
    }

    /// Fails unless the store has the format of this program, or is still empty.
    pub(crate) async fn check_version(&self) -> Result<(), SharedError> {
        let Some(bytes) = self.read(&self.path(VERSION_FILE)).await? else { return Ok(()) };
        let text = String::from_utf8_lossy(&bytes);
        let found: String = text.trim().chars().take(40).collect();
        if found == STORE_VERSION.to_string() {
            return Ok(());
        }
        Err(SharedError::Version { address: self.address.clone(), found })
    }

    /// Says which format the store has, where nobody has yet.
    pub(crate) async fn write_version(&self) -> Result<(), SharedError> {
        self.put_if_absent(&self.path(VERSION_FILE), format!("{STORE_VERSION}\n").into_bytes()).await.map(|_| ())
    }

    async fn if_present<T>(
        &self,
        operation: &'static str,
        asked: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Option<T>, SharedError> {
        let found = async {
            match asked.await {
                Ok(found) => Ok(Some(found)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.patiently(operation, found).await
    }

    /// Waits for an answer, but not for ever.
    pub(crate) async fn patiently<T>(
        &self,
        operation: &'static str,
        asked: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, SharedError> {
        let address = || self.address.clone();
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(SharedError::Unreachable { address: address(), operation, source: Box::new(error) }),
            Err(_) => Err(SharedError::Silent { address: address(), operation, patience: PATIENCE }),
        }
    }
}

impl Listed {
    fn of(folder: &Path, entry: ObjectMeta) -> Self {
        let below = entry.location.as_ref().strip_prefix(folder.as_ref()).unwrap_or_default();
        let hex: String = below.trim_end_matches(".json").split('/').collect();
        Self { digest: hex.parse().ok(), bytes: entry.size, modified: entry.last_modified.into(), path: entry.location }
    }
}

/// The client of an address, and the prefix of all names.
fn client(
    address: &Address,
    mode: Mode,
    variables: &Variables,
) -> object_store::Result<(Arc<dyn ObjectStore>, String)> {
    let backoff = BackoffConfig { max_backoff: LONGEST_PAUSE, ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: MOST_RETRIES, retry_timeout: RETRY_WITHIN };
    // A limit for a whole answer would be one for the size of a file; `PATIENCE` is the limit for each piece of it.
    let options = ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT_WITHIN);
    Ok(match address {
        Address::Folder(folder) => (Arc::new(local(folder, mode)?), String::new()),
        Address::S3(Bucket { name, prefix }) => {
            let builder = AmazonS3Builder::new().with_client_options(options).with_retry(retry);
            let builder = known::<AmazonS3ConfigKey>(variables, "AWS_")
                .fold(builder, |builder, (key, value)| builder.with_config(key, value));
            (Arc::new(builder.with_bucket_name(name).build()?), prefix.clone())
        }
        Address::Gcs(Bucket { name, prefix }) => {
            let builder = GoogleCloudStorageBuilder::new().with_client_options(options).with_retry(retry);
            let builder = known::<GoogleConfigKey>(variables, "GOOGLE_")
                .fold(builder, |builder, (key, value)| builder.with_config(key, value));
            (Arc::new(builder.with_bucket_name(name).build()?), prefix.clone())
        }
        Address::Http { url } => {
            let options = options.with_config(ClientConfigKey::AllowHttp, "true");
            let builder = HttpBuilder::new().with_url(url).with_client_options(options).with_retry(retry);
            (Arc::new(builder.build()?), String::new())
        }
    })
}

/// The client of a folder. It is made where its parent is there: if not even that is, a disk is not mounted.
fn local(folder: &std::path::Path, mode: Mode) -> object_store::Result<LocalFileSystem> {
    if mode == Mode::ReadWrite && !folder.is_dir() {
        std::fs::create_dir(folder).map_err(|error| Error::Generic {
            store: "folder",
            source: format!("cannot create the folder `{}`: {error}", folder.display()).into(),
        })?;
    }
    LocalFileSystem::new_with_prefix(folder)
}

/// The variables that a client knows, with what they are to it.
fn known<K: std::str::FromStr>(variables: &Variables, beginning: &str) -> impl Iterator<Item = (K, String)> {
    let ours = variables.iter().filter(move |(name, _)| name.starts_with(beginning));
    ours.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.clone())))
}
