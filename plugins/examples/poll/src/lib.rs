//! POLL: a message type that no node knows until this file is dropped in.
//!
//! One type, three actions. `create` asks a question, `vote` answers it, `close` ends it:
//!
//! ```json
//! {"address": "0x…", "time": 1, "action": "create", "question": "Tea?", "options": ["yes", "no"]}
//! {"address": "0x…", "time": 2, "action": "vote", "poll": "<hash of the first>", "option": 0}
//! {"address": "0x…", "time": 3, "action": "close", "poll": "<hash of the first>"}
//! ```
//!
//! An address has one vote, its latest; votes after the close do not count; only the creator closes. All of that is by (time, hash) of the
//! messages, never by when they came.

mod content;
mod query;
mod rules;
mod state;

use plugin_sdk::{Costs, Handler, Message, Outcome, Plan, Rejection, Request, Response, View, Withdrawal, Write};

/// The message type POLL.
#[derive(Debug)]
pub struct Poll;

impl Handler for Poll {
    fn validate(message: &Message) -> Result<Plan, Rejection> {
        rules::validate(message)
    }

    fn process(message: &Message, view: &dyn View) -> Outcome {
        rules::process(message, view)
    }

    fn withdraw(message: &Message, _why: Withdrawal, view: &dyn View) -> Vec<Write> {
        rules::withdraw(message, view)
    }

    fn price(_message: &Message, _view: &dyn View) -> Result<Option<Costs>, Rejection> {
        Ok(None)
    }

    fn query(request: &Request, view: &dyn View) -> Response {
        query::answer(request, view)
    }
}

plugin_sdk::handler!(Poll, "../manifest.json");
