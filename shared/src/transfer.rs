//! Files on their way between the local store and the shared one, a piece at a time.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use nnflow_cache::{Digest, hash_bytes};
use object_store::{GetResultPayload, MultipartUpload, PutPayload};

use crate::connection::Connection;
use crate::error::SharedError;
use crate::flaw::Flaw;

/// Files up to this size go in one piece, larger ones in pieces of at least this size, one after the other: so much memory is
/// taken for each file under way.
const PIECE_BYTES: u64 = 8 * 1024 * 1024;

/// S3 takes a file in at most 10,000 pieces.
const MOST_PIECES: u64 = 9_000;

impl Connection {
    /// Writes an object to a local file that is not there yet. Its length is checked, its digest is not.
    pub(crate) async fn download(
        &self,
        digest: Digest,
        expected: u64,
        to: &Path,
    ) -> Result<Result<(), Flaw>, SharedError> {
        let Some(mut found) = self.get(&self.object(&digest)).await? else {
            return Ok(Err(Flaw::MissingObject { digest }));
        };
        let wrong = |found| Ok(Err(Flaw::WrongLength { digest, expected, found }));
        if found.meta.size != expected {
            return wrong(found.meta.size);
        }
        let mut file = File::create_new(to).map_err(|error| failed("create", to, error))?;
        if let GetResultPayload::File(source, _) = &mut found.payload {
            // The system copies by itself, which shares the blocks where the file system can.
            let written = std::io::copy(source, &mut file).map_err(|error| failed("write", to, error))?;
            return if written == expected { Ok(Ok(())) } else { wrong(written) };
        }
        let mut written = 0;
        let mut pieces = found.into_stream();
        while let Some(piece) = self.next(&mut pieces).await? {
            written += piece.len() as u64;
            if written > expected {
                return wrong(written);
            }
            file.write_all(&piece).map_err(|error| failed("write", to, error))?;
        }
        if written == expected { Ok(Ok(())) } else { wrong(written) }
    }

    /// Puts an object of the local store into the shared one. Bytes that are not those of its name are not passed on.
    pub(crate) async fn upload(&self, digest: Digest, bytes: u64, from: &Path) -> Result<(), SharedError> {
        let mut file = File::open(from).map_err(|error| failed("open", from, error))?;
        if bytes > PIECE_BYTES {
            return self.upload_in_pieces(digest, bytes, &mut file, from).await;
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(|error| failed("read", from, error))?;
        if hash_bytes(&content) != digest {
            return Err(SharedError::DamagedHere { digest });
        }
        self.put(&self.object(&digest), content).await
    }

    async fn upload_in_pieces(
        &self,
        digest: Digest,
        bytes: u64,
        file: &mut File,
        from: &Path,
    ) -> Result<(), SharedError> {
        let mut upload = self.begin(&self.object(&digest)).await?;
        let sent = self.send_pieces(upload.as_mut(), bytes, file, from).await;
        let sent = sent.and_then(|found| match found == digest {
            true => Ok(()),
            false => Err(SharedError::DamagedHere { digest }),
        });
        if let Err(error) = sent {
            // A bucket may keep what was sent so far until a rule of its own removes it; the first error says more.
            self.patiently("give up", upload.abort()).await.unwrap_or_default();
            return Err(error);
        }
        self.patiently("write", upload.complete()).await.map(|_| ())
    }

    /// Returns the digest of what was sent.
    async fn send_pieces(
        &self,
        upload: &mut dyn MultipartUpload,
        bytes: u64,
        file: &mut File,
        from: &Path,
    ) -> Result<Digest, SharedError> {
        let piece_bytes = PIECE_BYTES.max(bytes.div_ceil(MOST_PIECES));
        let mut hasher = blake3::Hasher::new();
        loop {
            let mut piece = Vec::new();
            let read = Read::by_ref(file).take(piece_bytes).read_to_end(&mut piece);
            if read.map_err(|error| failed("read", from, error))? == 0 {
                return Ok(Digest::from_bytes(*hasher.finalize().as_bytes()));
            }
            hasher.update(&piece);
            self.patiently("write", upload.put_part(PutPayload::from(piece))).await?;
        }
    }
}

fn failed(operation: &'static str, path: &Path, source: std::io::Error) -> SharedError {
    SharedError::File { operation, path: path.display().to_string(), source }
}
