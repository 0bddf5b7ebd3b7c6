//! STORE (messages spec section 5): open.

use super::{
    payment::{Payment, PaymentType},
    read_tags,
};
use crate::{
    ItemHash, ItemType,
    envelope::ContentHeader,
    item_hash::Engine,
    json::{FormatError, Object, Value},
};

/// What a STORE says: keep this file.
#[derive(Debug, Clone)]
pub struct StoreContent {
    /// Owner and time.
    pub header: ContentHeader,
    /// The file.
    pub item_hash: ItemHash,
    /// Which version this is of: a STORE message, or a name of the owner's own.
    pub reference: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// How it is paid; none is by holding.
    pub payment: Option<Payment>,
    /// A size that a client expects, MiB: only for estimates.
    pub estimated_size_mib: Option<f64>,
}

impl StoreContent {
    /// Reads a content object.
    ///
    /// # Errors
    /// It is not that of a STORE.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut object = Object::parse(text)?;
        let header = ContentHeader::read(&mut object)?;
        let item_type = object.required("item_type", |value| {
            value.one_of(&[("storage", ItemType::Storage), ("ipfs", ItemType::Ipfs), ("inline", ItemType::Inline)])
        })?;
        let item_hash = object.required("item_hash", Value::item_hash)?;
        let fits = match item_type {
            ItemType::Storage => item_hash.engine() == Engine::Storage,
            ItemType::Ipfs => item_hash.engine() == Engine::Ipfs,
            ItemType::Inline => false,
        };
        if !fits {
            return Err(FormatError::new(
                "item_hash",
                format!("does not fit item type {}: storage takes a sha256, ipfs a CID", item_type.name()),
            ));
        }
        let reference = object.optional("ref", Value::string)?;
        object.optional("metadata", Value::object)?;
        let tags = object.optional("tags", read_tags)?.unwrap_or_default();
        let allowed = [PaymentType::WORDS[0], PaymentType::WORDS[2]];
        let payment = object.optional("payment", |value| Payment::read(value, &allowed))?;
        let estimated_size_mib = object.optional("estimated_size_mib", Value::float)?;
        Ok(Self { header, item_hash, reference, tags, payment, estimated_size_mib })
    }
}
