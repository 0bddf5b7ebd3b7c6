//! Which headers end at this node (RFC 9110, section 7.6.1) and which go on.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};

/// Whether a change of protocol goes on to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// It does.
    Keep,
    /// It is between this node and its peer alone.
    Strip,
}

/// Whether the client asks for another protocol, such as a WebSocket.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE) && connection_options(headers).any(|option| option == UPGRADE)
}

/// The header names that `Connection` lists. What is no header name names no header.
fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .filter_map(|option| option.trim().parse().ok())
}

/// Takes out what is meant for this hop only. Everything else stays as it is, repetitions included.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: Upgrade) {
    let listed: Vec<HeaderName> = connection_options(headers).collect();
    if headers.contains_key(TRANSFER_ENCODING) {
        // It was overridden by the encoding that ends here (RFC 9112, section 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    let fixed = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in listed.into_iter().chain(fixed) {
        if name != UPGRADE || upgrade == Upgrade::Strip {
            headers.remove(name);
        }
    }
    if upgrade == Upgrade::Keep {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Adds what this node's own connection to the program needs.
pub(super) fn complete(headers: &mut HeaderMap, upgrade: bool) {
    // The wait for permission to send a body is between the client and this node, which grants it.
    headers.remove(EXPECT);
    // A client of HTTP/1.0 may leave it out, a server of HTTP/1.1 insists on it.
    headers.entry(HOST).or_insert(HeaderValue::from_static("localhost"));
    if !upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers
                .append(HeaderName::try_from(*name).expect("a name"), HeaderValue::try_from(*value).expect("a value"));
        }
        headers
    }

    fn check(before: &[(&str, &str)], upgrade: Upgrade, after: &[(&str, &str)]) {
        let mut headers = map(before);
        strip_hop_by_hop(&mut headers, upgrade);
        assert_eq!(headers, map(after), "{before:?}");
    }

    #[test]
    fn what_connection_lists_ends_here() {
        check(
            &[
                ("connection", "close, X-Secret"),
                ("Connection", "x-other,"),
                ("x-secret", "1"),
                ("x-other", "2"),
                ("x-kept", "3"),
            ],
            Upgrade::Strip,
            &[("x-kept", "3")],
        );
    }

    #[test]
    fn repetitions_and_encodings_stay() {
        let all = [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("content-encoding", "gzip"), ("vary", "accept")];
        check(&all, Upgrade::Strip, &all);
    }

    #[test]
    fn an_upgrade_goes_on_when_it_is_meant_to() {
        let asked = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "k")];
        check(
            &asked,
            Upgrade::Keep,
            &[("upgrade", "websocket"), ("sec-websocket-key", "k"), ("connection", "upgrade")],
        );
        check(&asked, Upgrade::Strip, &[("sec-websocket-key", "k")]);
        assert!(wants_upgrade(&map(&asked)));
        assert!(!wants_upgrade(&map(&[("upgrade", "websocket")])));
        assert!(!wants_upgrade(&map(&[("connection", "upgrade")])));
    }

    #[test]
    fn a_request_without_host_gets_one() {
        let mut headers = map(&[("expect", "100-continue")]);
        complete(&mut headers, false);
        assert_eq!(headers, map(&[("host", "localhost"), ("connection", "close")]));
    }
}
