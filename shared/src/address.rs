//! Where a shared store is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The place of a shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A folder, most often on a disk that several machines mount.
    Folder(PathBuf),
    /// Names below a prefix in a bucket of Amazon S3, or of a server that speaks its protocol.
    S3(Bucket),
    /// Names below a prefix in a bucket of Google Cloud Storage.
    Gcs(Bucket),
    /// A web server, which is only read from.
    Http {
        /// The address of the folder.
        url: String,
    },
}

/// A bucket, and the prefix of the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// The bucket's name.
    pub name: String,
    /// The prefix, without `/` at its ends.
    pub prefix: String,
}

/// Why a text is not the address of a shared store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is nothing.
    #[error("the address of a shared store is empty")]
    Empty,
    /// Nothing is known of this kind of address.
    #[error("`{scheme}://` is no kind of shared store: expected a folder, `s3://`, `gs://`, `http://` or `https://`")]
    Scheme {
        /// What stands before `://`.
        scheme: String,
    },
    /// The bucket or the host is missing.
    #[error("`{address}` names no {what}")]
    Incomplete {
        /// The address.
        address: String,
        /// What is missing.
        what: &'static str,
    },
    /// An address stands in files that are passed around, so it is no place for a password.
    #[error("an address must not hold a user or password: expected them in the environment")]
    Credentials,
    /// Something follows the path.
    #[error("`{address}` has a query or a fragment: expected a plain path")]
    Query {
        /// The address.
        address: String,
    },
}

impl Address {
    /// The address with a relative folder taken from `base`.
    #[must_use]
    pub fn relative_to(self, base: &Path) -> Self {
        match self {
            Self::Folder(folder) => Self::Folder(base.join(folder)),
            other => other,
        }
    }

    /// Whether results can be put there at all.
    #[must_use]
    pub fn takes_results(&self) -> bool {
        !matches!(self, Self::Http { .. })
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Folder(PathBuf::from(text))) };
        let authority = rest.split('/').next().unwrap_or(rest);
        if authority.contains('@') {
            return Err(AddressError::Credentials);
        }
        if scheme != "file" && rest.contains(['?', '#']) {
            return Err(AddressError::Query { address: text.to_owned() });
        }
        let incomplete = |what| AddressError::Incomplete { address: text.to_owned(), what };
        let bucket = || Bucket::of(rest).ok_or_else(|| incomplete("bucket"));
        match scheme {
            "file" if rest.starts_with('/') => Ok(Self::Folder(PathBuf::from(rest))),
            "file" => Err(incomplete("folder of this machine, as `file:///folder` does")),
            "s3" => bucket().map(Self::S3),
            "gs" => bucket().map(Self::Gcs),
            "http" | "https" if authority.is_empty() => Err(incomplete("server")),
            "http" | "https" => Ok(Self::Http { url: text.trim_end_matches('/').to_owned() }),
            _ => Err(AddressError::Scheme { scheme: scheme.to_owned() }),
        }
    }
}

impl Bucket {
    fn of(rest: &str) -> Option<Self> {
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        (!name.is_empty()).then(|| Self { name: name.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        write!(formatter, "{}{slash}{}", self.name, self.prefix)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(formatter, "{}", folder.display()),
            Self::S3(bucket) => write!(formatter, "s3://{bucket}"),
            Self::Gcs(bucket) => write!(formatter, "gs://{bucket}"),
            Self::Http { url } => formatter.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(name: &str, prefix: &str) -> Bucket {
        Bucket { name: name.to_owned(), prefix: prefix.to_owned() }
    }

    fn check(text: &str, expected: &Address) {
        assert_eq!(text.parse().as_ref(), Ok(expected));
        assert_eq!(expected.to_string().parse().as_ref(), Ok(expected));
    }

    fn refused(text: &str) -> String {
        text.parse::<Address>().unwrap_err().to_string()
    }

    #[test]
    fn a_bucket_may_have_a_prefix() {
        check("s3://results", &Address::S3(bucket("results", "")));
        check("s3://results/a/b/", &Address::S3(bucket("results", "a/b")));
        check("gs://results/a", &Address::Gcs(bucket("results", "a")));
    }

    #[test]
    fn what_has_no_scheme_is_a_folder() {
        check("../shared", &Address::Folder(PathBuf::from("../shared")));
        assert_eq!("file:///disk/shared".parse(), Ok(Address::Folder(PathBuf::from("/disk/shared"))));
    }

    #[test]
    fn a_relative_folder_is_taken_from_where_it_is_written() {
        let address: Address = "../shared".parse().unwrap();
        assert_eq!(address.relative_to(Path::new("/project")), Address::Folder(PathBuf::from("/project/../shared")));
    }

    #[test]
    fn a_web_server_takes_nothing() {
        let address: Address = "https://example.org/results/".parse().unwrap();
        assert_eq!(address, Address::Http { url: "https://example.org/results".to_owned() });
        assert!(!address.takes_results());
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        let message = refused("https://user:secret@example.org/results");
        assert!(!message.contains("secret"), "{message}");
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_is_one() {
        let schemes = "expected a folder, `s3://`, `gs://`, `http://` or `https://`";
        assert_eq!(refused("ftp://example.org"), format!("`ftp://` is no kind of shared store: {schemes}"));
        assert_eq!(refused("s3://"), "`s3://` names no bucket");
        assert_eq!(refused("https:///results"), "`https:///results` names no server");
        assert_eq!(refused(" "), "the address of a shared store is empty");
        assert_eq!(
            refused("https://example.org/results?token=1"),
            "`https://example.org/results?token=1` has a query or a fragment: expected a plain path"
        );
    }
}
