//! Who may have a file, and how each is asked. No I/O.

use crate::dag::cid::Cid;
use ccn_message::{ItemHash, item_hash::Engine};
use reqwest::Method;
use std::fmt;

/// Somebody who may have files. Base URLs have no slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Another core channel node.
    Peer(String),
    /// An IPFS node that answers to us alone, by kubo's RPC. (Its `cat` is not used: it gives bytes that prove nothing where a file was cut in
    /// another way than the usual one.)
    Ipfs(String),
    /// An IPFS gateway that need not be trusted, <https://specs.ipfs.tech/http-gateways/trustless-gateway/>.
    Gateway(String),
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) url: String,
    /// Forms in which the answer is understood.
    pub(super) accept: &'static str,
}

const ANY: &str = "*/*";
const ARCHIVE: &str = "application/vnd.ipld.car";
const BLOCK: &str = "application/vnd.ipld.raw";

impl Source {
    fn ask(method: Method, url: String, accept: &'static str) -> Question {
        Question { method, url, accept }
    }

    /// Asks for the bytes of a file.
    pub(super) fn bytes(&self, hash: &ItemHash) -> Option<Question> {
        match self {
            Self::Peer(url) => Some(Self::ask(Method::GET, format!("{url}/api/v0/storage/raw/{hash}"), ANY)),
            Self::Ipfs(_) | Self::Gateway(_) => None,
        }
    }

    /// Asks for all blocks of a file or folder. Nodes of this kind answer it for folders, other peers do not know it.
    pub(super) fn archive(&self, hash: &ItemHash) -> Option<Question> {
        if hash.engine() != Engine::Ipfs {
            return None;
        }
        Some(match self {
            Self::Peer(url) | Self::Gateway(url) => {
                Self::ask(Method::GET, format!("{url}/ipfs/{hash}?format=car"), ARCHIVE)
            }
            Self::Ipfs(url) => {
                Self::ask(Method::POST, format!("{url}/api/v0/dag/export?arg={hash}&progress=false"), ANY)
            }
        })
    }

    /// Asks for one block.
    pub(super) fn block(&self, cid: &Cid) -> Option<Question> {
        match self {
            Self::Peer(_) => None,
            Self::Ipfs(url) => Some(Self::ask(Method::POST, format!("{url}/api/v0/block/get?arg={cid}"), ANY)),
            Self::Gateway(url) => Some(Self::ask(Method::GET, format!("{url}/ipfs/{cid}?format=raw"), BLOCK)),
        }
    }

    /// True when it may have that file or folder.
    pub(super) fn may_have(&self, hash: &ItemHash) -> bool {
        self.bytes(hash).is_some() || self.archive(hash).is_some()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(url) => write!(formatter, "the peer {url}"),
            Self::Ipfs(url) => write!(formatter, "the IPFS node {url}"),
            Self::Gateway(url) => write!(formatter, "the gateway {url}"),
        }
    }
}

/// The sources in the order in which they are asked for that file: peers, the IPFS node, gateways. Which peer and which gateway is the first
/// differs by file, so that none gets all questions.
pub(super) fn in_turn<'source>(sources: &'source [Source], hash: &ItemHash) -> Vec<&'source Source> {
    let by_hash = hash.to_string().bytes().last().map_or(0, usize::from);
    let rotated = |is: fn(&Source) -> bool| {
        let mut some: Vec<&Source> = sources.iter().filter(|source| is(source) && source.may_have(hash)).collect();
        let first = by_hash % some.len().max(1);
        some.rotate_left(first);
        some
    };
    [
        rotated(|source| matches!(source, Source::Peer(_))),
        rotated(|source| matches!(source, Source::Ipfs(_))),
        rotated(|source| matches!(source, Source::Gateway(_))),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";

    #[test]
    fn each_is_asked_in_its_own_words() {
        let cid = ItemHash::parse(CID).expect("a CID");
        let block = Cid::try_from(&cid).expect("a CID");
        let url = |question: Option<Question>| question.map(|question| format!("{} {}", question.method, question.url));
        let (peer, ipfs, gateway) =
            (Source::Peer("http://p".into()), Source::Ipfs("http://i".into()), Source::Gateway("http://g".into()));
        let check = |question, expect: Option<String>| assert_eq!(url(question), expect);
        check(peer.bytes(&cid), Some(format!("GET http://p/api/v0/storage/raw/{CID}")));
        check(peer.archive(&cid), Some(format!("GET http://p/ipfs/{CID}?format=car")));
        check(peer.block(&block), None);
        check(ipfs.bytes(&cid), None);
        check(ipfs.archive(&cid), Some(format!("POST http://i/api/v0/dag/export?arg={CID}&progress=false")));
        check(ipfs.block(&block), Some(format!("POST http://i/api/v0/block/get?arg={CID}")));
        check(gateway.bytes(&cid), None);
        check(gateway.archive(&cid), Some(format!("GET http://g/ipfs/{CID}?format=car")));
        check(gateway.block(&block), Some(format!("GET http://g/ipfs/{CID}?format=raw")));
    }

    #[test]
    fn ipfs_is_asked_last_and_only_for_its_own() {
        let sources = [
            Source::Gateway("http://g".into()),
            Source::Ipfs("http://i".into()),
            Source::Peer("http://a".into()),
            Source::Peer("http://b".into()),
        ];
        let cid = ItemHash::parse(CID).expect("a CID");
        let [_, _, third, fourth] = in_turn(&sources, &cid)[..] else { panic!("all four") };
        assert_eq!((third, fourth), (&sources[1], &sources[0]));
        let firsts: Vec<&Source> =
            (0_u8..32).map(|byte| in_turn(&sources, &ItemHash::from_sha256([byte; 32]))[0]).collect();
        assert!(firsts.contains(&&sources[2]) && firsts.contains(&&sources[3]));
        assert_eq!(in_turn(&sources, &ItemHash::from_sha256([1; 32])).len(), 2);
        assert!(in_turn(&[], &cid).is_empty());
    }
}
