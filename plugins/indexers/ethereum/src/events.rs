//! The contract's two events as it encodes them.

use alloy_sol_types::{SolEvent, SolType, sol};
use plugin_sdk::indexer::Event;

sol! {
    event SyncEvent(uint256 timestamp, address addr, string message);
    event MessageEvent(uint256 timestamp, address addr, string msgtype, string msgcontent);
}

/// First topic of a sync event.
pub(crate) const SYNC_EVENT: [u8; 32] = SyncEvent::SIGNATURE_HASH.0;
/// First topic of a message event.
pub(crate) const MESSAGE_EVENT: [u8; 32] = MessageEvent::SIGNATURE_HASH.0;

/// An event, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Sync {
        publisher: [u8; 20],
        message: String,
    },
    Message {
        publisher: [u8; 20],
        /// Seconds since 1970, if they are that.
        timestamp: Option<u64>,
        kind: String,
        content: String,
    },
}

/// Reads an event; none when its data is not of its form.
pub(crate) fn read(event: &Event<'_>) -> Option<Read> {
    // Texts are held against UTF-8: the decoder alone would exchange what is none.
    match event.topics.as_slice() {
        [topic] if *topic == SYNC_EVENT => {
            type Data = <SyncEvent as SolEvent>::DataTuple<'static>;
            let (_, publisher, message) = Data::abi_decode_params_validate(event.data).ok()?;
            Some(Read::Sync { publisher: publisher.into_array(), message })
        }
        [topic] if *topic == MESSAGE_EVENT => {
            type Data = <MessageEvent as SolEvent>::DataTuple<'static>;
            let (timestamp, publisher, kind, content) = Data::abi_decode_params_validate(event.data).ok()?;
            Some(Read::Message {
                publisher: publisher.into_array(),
                timestamp: timestamp.try_into().ok(),
                kind,
                content,
            })
        }
        _ => None,
    }
}
