//! The trait of a message type, and the macro that makes a plugin of it.

use crate::{
    Costs, Effects, Message, Need, Outcome, Plan, Rejection, Request, Response, View, Wait, Withdrawal, Write,
};
use ccn_message::{ErrorCode, FormatError};

/// What a message type is. Every function is pure: nothing but its arguments counts.
pub trait Handler {
    /// The schema: a function of the message alone.
    ///
    /// # Errors
    /// The message is not of this type's form.
    fn validate(message: &Message) -> Result<Plan, Rejection>;

    /// The meaning, called when [`Handler::validate`] passed and the sender may act for the address.
    fn process(message: &Message, view: &dyn View) -> Outcome;

    /// Undoes what [`Handler::process`] added to the state for a message that stood, in whatever order the messages came. The view no longer
    /// shows the message itself.
    fn withdraw(message: &Message, why: Withdrawal, view: &dyn View) -> Vec<Write>;

    /// What the message costs; none when messages of this type have no price.
    ///
    /// # Errors
    /// The message is not of this type's form.
    fn price(message: &Message, view: &dyn View) -> Result<Option<Costs>, Rejection>;

    /// Answers a request to one of the manifest's routes.
    fn query(request: &Request, view: &dyn View) -> Response;
}

/// Why a message is not accepted now: what `?` carries through the rules of a handler.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// It can never be, or not as long as what it rests on stays as it is.
    Rejected(Rejection),
    /// Something is missing.
    Waiting(Wait),
}

impl Refusal {
    /// Waits for all of `missing`; `otherwise` is the verdict should they never come.
    #[must_use]
    pub fn waiting(missing: Vec<Need>, otherwise: Rejection) -> Self {
        Self::Waiting(Wait { missing, otherwise })
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<FormatError> for Refusal {
    fn from(error: FormatError) -> Self {
        Self::Rejected(error.into())
    }
}

impl From<Result<Effects, Refusal>> for Outcome {
    fn from(result: Result<Effects, Refusal>) -> Self {
        match result {
            Ok(effects) => Self::Accepted(effects),
            Err(Refusal::Rejected(rejection)) => Self::Rejected(rejection),
            Err(Refusal::Waiting(wait)) => Self::Waiting(wait),
        }
    }
}

/// A rejection with one sentence.
pub fn rejected(code: ErrorCode, sentence: impl AsRef<str>) -> Rejection {
    Rejection { code: code.number(), errors: vec![serde_json::Value::from(sentence.as_ref()).to_string()] }
}

impl From<FormatError> for Rejection {
    fn from(error: FormatError) -> Self {
        rejected(ErrorCode::InvalidFormat, error.to_string())
    }
}

/// The content of a message as text. The node has seen that it is JSON, and so UTF-8.
///
/// # Errors
/// It is not, all the same.
pub fn text_of(message: &Message) -> Result<&str, Rejection> {
    std::str::from_utf8(&message.content).map_err(|_| rejected(ErrorCode::InvalidFormat, "the content is not UTF-8"))
}

/// Effects that change nothing: what an accepted message starts from.
#[must_use]
pub fn no_effects() -> Effects {
    Effects {
        writes: Vec::new(),
        pins: Vec::new(),
        costs: None,
        workload: None,
        authorizations: None,
        ledger: Vec::new(),
        forgets: Vec::new(),
        uses: Vec::new(),
        follows: None,
        watches: Vec::new(),
    }
}

/// Makes a plugin of a type that implements [`Handler`]: exports the contract's functions and embeds the manifest.
///
/// ```ignore
/// plugin_sdk::handler!(Post, "../manifest.json");
/// ```
#[macro_export]
macro_rules! handler {
    ($handler:ty, $manifest:literal) => {
        struct Component;

        impl $crate::bindings::exports::aleph::plugin::handler::Guest for Component {
            fn validate(message: $crate::Message) -> Result<$crate::Plan, $crate::Rejection> {
                <$handler as $crate::Handler>::validate(&message)
            }
            fn process(message: $crate::Message) -> $crate::Outcome {
                <$handler as $crate::Handler>::process(&message, &$crate::HostView)
            }
            fn withdraw(message: $crate::Message, why: $crate::Withdrawal) -> Vec<$crate::Write> {
                <$handler as $crate::Handler>::withdraw(&message, why, &$crate::HostView)
            }
            fn price(message: $crate::Message) -> Result<Option<$crate::Costs>, $crate::Rejection> {
                <$handler as $crate::Handler>::price(&message, &$crate::HostView)
            }
        }

        impl $crate::bindings::exports::aleph::plugin::query::Guest for Component {
            fn run(request: $crate::Request) -> $crate::Response {
                <$handler as $crate::Handler>::query(&request, &$crate::HostView)
            }
        }

        #[cfg(target_family = "wasm")]
        #[expect(unsafe_code, reason = "the exports of the contract, generated")]
        mod exported {
            use super::Component;
            $crate::bindings::export!(Component with_types_in $crate::bindings);

            #[used]
            #[unsafe(link_section = "aleph:manifest")]
            static MANIFEST: [u8; include_bytes!($manifest).len()] = *include_bytes!($manifest);
        }
    };
}
