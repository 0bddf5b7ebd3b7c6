//! An answer that is being read: nobody is waited for without end, and nobody sends without end.

use super::{failure::Failure, source::Question};
use bytes::Bytes;
use reqwest::{
    Client, Response, Url,
    header::{ACCEPT, CONTENT_TYPE},
    redirect,
};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

/// How long others may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until an answer begins.
    pub answer: Duration,
    /// While nothing comes.
    pub stall: Duration,
    /// An answer, whatever its length.
    pub at_once: Duration,
    /// The rate at which it may take longer, bytes a second.
    pub least_rate: u64,
    /// One source with one file.
    pub source: Duration,
    /// All of them with one file.
    pub round: Duration,
    /// After this the next source is asked as well, while no answer has begun.
    pub second: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            at_once: Duration::from_secs(60),
            least_rate: 8 << 10,
            source: Duration::from_secs(3600),
            round: Duration::from_secs(2 * 3600),
            second: Duration::from_secs(3),
        }
    }
}

/// Redirections that are followed.
const MAX_REDIRECTIONS: usize = 4;

/// Follows a source to itself and its subdomains (gateways have one per file), and not to whom it pleases: that may be inside our own network.
pub(super) fn redirections() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let first = attempt.previous().first();
        if attempt.previous().len() > MAX_REDIRECTIONS {
            attempt.error("it redirects again and again")
        } else if first.is_some_and(|first| is_same_site(first, attempt.url())) {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

fn is_same_site(from: &Url, to: &Url) -> bool {
    let (Some(site), Some(host)) = (from.host_str(), to.host_str()) else { return false };
    let is_subdomain = host.strip_suffix(site).is_some_and(|rest| rest.ends_with('.'));
    // Another port is another service, but for the way from HTTP to HTTPS.
    (host == site || is_subdomain) && (to.port().is_none() || to.port() == from.port())
}

/// Sources whose answers have begun.
#[derive(Debug, Default)]
pub(super) struct Begun(AtomicUsize);

impl Begun {
    pub(super) fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// A part in the answers that have begun, until it is dropped.
#[derive(Debug)]
pub(super) struct Share<'begun>(&'begun Begun, bool);

impl<'begun> Share<'begun> {
    pub(super) fn none_yet(begun: &'begun Begun) -> Self {
        Self(begun, false)
    }

    fn begin(&mut self) {
        if !self.1 {
            self.1 = true;
            self.0.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// An answer that is being read.
pub(super) struct Answer<'fetcher> {
    response: Response,
    patience: Patience,
    started: Instant,
    received: u64,
    /// A place among the downloads: as many are read at once.
    _place: SemaphorePermit<'fetcher>,
}

impl<'fetcher> Answer<'fetcher> {
    /// Asks, and waits for the head of the answer and for a place to read it.
    pub(super) async fn to(
        question: Question,
        client: &Client,
        places: &'fetcher Semaphore,
        patience: Patience,
    ) -> Result<Self, Failure> {
        let request = client.request(question.method, question.url).header(ACCEPT, question.accept).send();
        let response = timeout(patience.answer, request).await.map_err(|_| Failure::Late)??;
        if !response.status().is_success() {
            return Err(Failure::Status(response.status()));
        }
        let closed = |_| Failure::Disk(std::io::Error::other("the node stops"));
        let place = places.acquire().await.map_err(closed)?;
        Ok(Self { response, patience, started: Instant::now(), received: 0, _place: place })
    }

    /// Bytes of all of it, if it says so.
    pub(super) fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// True for a folder as an archive of its files, which proves nothing: its blocks are asked for.
    pub(super) fn is_of_files(&self) -> bool {
        self.response.headers().get(CONTENT_TYPE).is_some_and(|form| form == "application/x-tar")
    }

    /// The next piece; its first one makes the source one that has begun.
    pub(super) async fn next(&mut self, share: &mut Share<'_>) -> Result<Option<Bytes>, Failure> {
        let piece = timeout(self.patience.stall, self.response.chunk()).await.map_err(|_| Failure::Stalled)??;
        if let Some(piece) = &piece {
            share.begin();
            self.received += piece.len() as u64;
        }
        // The rate is a setting, and may be none.
        let longer = self.received.checked_div(self.patience.least_rate).unwrap_or(u64::MAX / 2);
        if self.started.elapsed() > self.patience.at_once.saturating_add(Duration::from_secs(longer)) {
            return Err(Failure::Slow);
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_leads_to_itself_and_nowhere_else() {
        let check = |from: &str, to: &str, expect: bool| {
            let url = |text| Url::parse(text).expect("a URL");
            assert_eq!(is_same_site(&url(from), &url(to)), expect, "{from} to {to}");
        };
        check("https://dweb.link/ipfs/bafy", "https://bafy.ipfs.dweb.link/", true);
        check("http://peer.example/a", "https://peer.example/a", true);
        check("http://peer.example:4024/a", "http://peer.example:4024/b", true);
        check("http://peer.example:4024/a", "https://peer.example/a", true);
        check("http://peer.example/a", "http://peer.example:5001/a", false);
        check("http://peer.example/a", "http://127.0.0.1/a", false);
        check("http://127.0.0.1:4024/a", "http://127.0.0.1:5001/a", false);
        check("https://dweb.link/a", "https://notdweb.link/", false);
        check("https://a.dweb.link/a", "https://dweb.link/", false);
    }
}
