//! Settings of the files: where they are kept.

use super::ConfigError;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Longest `files.s3.prefix`: names of objects have at most 1024 bytes, hashes among them.
const MAX_PREFIX_BYTES: usize = 512;

/// Where files are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// A bucket; without one they are in `files` in the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
}

/// A bucket of an S3-compatible object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// Where it is, a base URL without a slash at the end; without one, Amazon's of the region. The bucket's name becomes part of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its region; stores that have none go by the default.
    #[serde(default = "usual_region")]
    pub region: String,
    /// Before the names of all files, without a slash at the end. A bucket, or what is under a prefix of it, belongs to one node.
    #[serde(default)]
    pub prefix: String,
    /// By which key the node is known there.
    pub access_key_id: String,
    /// Its secret. It is nowhere shown, nor in the settings that are printed.
    #[serde(default, skip_serializing)]
    pub secret_access_key: Secret,
    /// True where an endpoint of plain HTTP is meant that is not on this machine.
    #[serde(default)]
    pub allow_http: bool,
}

/// A word that is not shown.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The word, for whom it is meant.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

/// The default of `region`: what stores without regions call theirs.
fn usual_region() -> String {
    "us-east-1".to_owned()
}

impl S3 {
    /// Bucket and prefix.
    #[must_use]
    pub fn place(&self) -> String {
        if self.prefix.is_empty() { self.bucket.clone() } else { format!("{}/{}", self.bucket, self.prefix) }
    }

    /// Holds the values against their limits.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |setting: &'static str, problem: String| Err(ConfigError::S3 { setting, problem });
        let is_name = |text: &str| {
            !matches!(text, "" | "." | "..")
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        if !is_name(&self.bucket) {
            return wrong("bucket", "it is made of letters, digits, dots and hyphens".to_owned());
        }
        if !is_name(&self.region) {
            return wrong("region", "it is made of letters, digits and hyphens, for example eu-central-1".to_owned());
        }
        if self.prefix.len() > MAX_PREFIX_BYTES {
            return wrong("prefix", format!("it has at most {MAX_PREFIX_BYTES} letters"));
        }
        if !self.prefix.is_empty() && !self.prefix.split('/').all(is_name) {
            return wrong("prefix", "it is names with single slashes between them, for example ccn/files".to_owned());
        }
        if self.access_key_id.is_empty() {
            return wrong("access_key_id", "it is needed".to_owned());
        }
        if self.secret_access_key.0.is_empty() {
            let problem = "it is needed: say it here, or in the variable BETH_FILES__S3__SECRET_ACCESS_KEY".to_owned();
            return wrong("secret_access_key", problem);
        }
        let Some(endpoint) = &self.endpoint else { return Ok(()) };
        let Ok(url) = reqwest::Url::parse(endpoint) else {
            return wrong("endpoint", "it must be an http or https URL".to_owned());
        };
        // What else may be in a URL could be a secret: it is not repeated.
        let has_more = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
        if has_more || !url.username().is_empty() || url.password().is_some() || !url.has_host() {
            return wrong("endpoint", "it is scheme, host and port alone; the key has settings of its own".to_owned());
        }
        let is_local = url.host_str().is_some_and(|host| {
            let host = host.trim_matches(['[', ']']);
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        });
        match url.scheme() {
            "https" => Ok(()),
            "http" if is_local || self.allow_http => Ok(()),
            "http" => wrong(
                "endpoint",
                "files would go over the network unencrypted: use https, or say files.s3.allow_http=true".to_owned(),
            ),
            _ => wrong("endpoint", "it must be an http or https URL".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "bucket = 'files'\naccess_key_id = 'AKIA'\nsecret_access_key = 'word'\nendpoint = 'https://s3.example.org'\n";

    fn refusal(table: &str) -> Option<String> {
        toml::from_str::<S3>(table).expect("a table").check().err().map(|error| error.to_string())
    }

    fn check(from: &str, to: &str, expect: &str) {
        let refusal = refusal(&GOOD.replace(from, to)).unwrap_or_default();
        assert!(refusal.contains(expect) && !refusal.contains("hidden"), "{refusal}");
    }

    #[test]
    fn a_bucket_is_held_against_its_limits() {
        assert_eq!(refusal(GOOD), None);
        check("'files'", "'a/b'", "files.s3.bucket: it is made of");
        check("'files'", "''", "files.s3.bucket");
        check("bucket", "region = 'a b'\nbucket", "files.s3.region");
        for prefix in ["/a", "a/", "a//b", "../a", "a/./b", "a b"] {
            check("bucket", &format!("prefix = '{prefix}'\nbucket"), "files.s3.prefix: it is names");
        }
        check("bucket", &format!("prefix = '{}'\nbucket", "a".repeat(513)), "at most 512 letters");
        check("'AKIA'", "''", "files.s3.access_key_id: it is needed");
        check("'word'", "''", "BETH_FILES__S3__SECRET_ACCESS_KEY");
    }

    #[test]
    fn plain_http_stays_on_this_machine_unless_it_is_meant() {
        for endpoint in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost"] {
            check("https://s3.example.org", endpoint, "");
            assert_eq!(refusal(&GOOD.replace("https://s3.example.org", endpoint)), None);
        }
        check("https:", "http:", "files.s3.allow_http=true");
        check("https://s3.example.org", "http://127.0.0.1.example.org", "files.s3.allow_http=true");
        assert_eq!(refusal(&format!("{}allow_http = true", GOOD.replace("https:", "http:"))), None);
        check("https:", "ftp:", "http or https");
        check("https://s3.example.org", "https://user:hidden@s3.example.org", "scheme, host and port alone");
        check("https://s3.example.org", "https://s3.example.org/hidden", "scheme, host and port alone");
        check("https://s3.example.org", "https://s3.example.org?hidden", "scheme, host and port alone");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let settings: S3 = toml::from_str(GOOD).expect("a table");
        assert_eq!(settings.secret_access_key.reveal(), "word");
        assert!(!format!("{settings:?}").contains("word"));
        assert!(!toml::to_string(&settings).expect("a table").contains("word"));
        assert_eq!(settings.place(), "files");
        assert_eq!(S3 { prefix: "a/b".to_owned(), ..settings }.place(), "files/a/b");
    }
}
