//! Statuses and error codes: public words of the network (messages spec section 10).

use std::{fmt, str::FromStr};

/// Where a message is in its life on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageStatus {
    /// Received, waiting for something.
    Pending,
    /// Applied.
    Processed,
    /// Refused, with an [`ErrorCode`]; anybody may send it again.
    Rejected,
    /// Forgotten by a FORGET message.
    Forgotten,
    /// Unpaid, about to be removed.
    Removing,
    /// Removed.
    Removed,
}

impl MessageStatus {
    /// All of them. Stores keep their places in this list: new ones come last.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Processed, Self::Rejected, Self::Forgotten, Self::Removing, Self::Removed];

    /// The words for them, in the same order.
    pub const NAMES: [&'static str; 6] = {
        let mut names = [""; 6];
        let mut place = 0;
        while place < names.len() {
            names[place] = Self::ALL[place].name();
            place += 1;
        }
        names
    };

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processed => "processed",
            Self::Rejected => "rejected",
            Self::Forgotten => "forgotten",
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for MessageStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A word that is no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a message status")]
pub struct UnknownStatus(String);

impl FromStr for MessageStatus {
    type Err = UnknownStatus;
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.name() == text)
            .ok_or_else(|| UnknownStatus(text.chars().take(32).collect()))
    }
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// Why a message is rejected. The numbers are public API; a plugin may use others of its own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> i32 {
                match self { $(Self::$name => $number,)* }
            }

            /// The code of a number, if the network has given it a meaning.
            #[must_use]
            pub fn from_number(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

error_codes! {
    /// The node's own mistake. Retried.
    Internal = -1,
    /// Not a message: schema, hash, JSON, a chain without verifier.
    InvalidFormat = 0,
    /// Missing or wrong signature.
    InvalidSignature = 1,
    /// The sender may not act for the address.
    PermissionDenied = 2,
    /// The content is not to be found. Waits.
    ContentUnavailable = 3,
    /// The file is not to be found. Waits.
    FileUnavailable = 4,
    /// Too few tokens.
    BalanceInsufficient = 5,
    /// Too few credits.
    CreditInsufficient = 6,
    /// An amend without a target.
    PostAmendNoTarget = 100,
    /// The target of an amend is unknown. Waits.
    PostAmendTargetNotFound = 101,
    /// The target of an amend is an amend.
    PostAmendAmend = 102,
    /// The STORE that is updated is unknown. Waits.
    StoreRefNotFound = 200,
    /// The STORE that is updated is an update.
    StoreUpdateUpdate = 201,
    /// A way of paying that is no longer taken.
    InvalidPaymentMethod = 202,
    /// The program that is replaced is unknown. Waits.
    VmRefNotFound = 300,
    /// A volume is unknown. Waits.
    VmVolumeNotFound = 301,
    /// The program that is replaced does not allow it.
    VmAmendNotAllowed = 302,
    /// The program that is replaced is a replacement.
    VmUpdateUpdate = 303,
    /// A volume is smaller than what it starts from.
    VmVolumeTooSmall = 304,
    /// A FORGET without targets.
    ForgetNoTarget = 500,
    /// The target of a FORGET is unknown. Waits.
    ForgetTargetNotFound = 501,
    /// The target of a FORGET is a FORGET.
    ForgetForget = 502,
    /// The target of a FORGET is in use.
    ForgetNotAllowed = 503,
    /// A copy of a forgotten message.
    ForgottenDuplicate = 504,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_those_of_the_network() {
        assert_eq!("removing".parse(), Ok(MessageStatus::Removing));
        assert_eq!(MessageStatus::NAMES.map(str::parse), MessageStatus::ALL.map(Ok));
        assert!("Processed".parse::<MessageStatus>().is_err());
        assert_eq!(ErrorCode::VmVolumeNotFound.number(), 301);
        assert_eq!(ErrorCode::from_number(6), Some(ErrorCode::CreditInsufficient));
        assert_eq!(ErrorCode::from_number(7), None);
    }
}
