//! What AGGREGATE messages mean: an owner's key has subkeys, and the newest value of each counts (messages spec 5, ccn spec 2.2).

mod query;
mod rules;
mod security;
mod state;

use plugin_sdk::{Costs, Handler, Message, Outcome, Plan, Rejection, Request, Response, View, Withdrawal, Write};

/// The message type AGGREGATE.
#[derive(Debug)]
pub struct Aggregate;

impl Handler for Aggregate {
    fn validate(message: &Message) -> Result<Plan, Rejection> {
        rules::validate(message)
    }

    fn process(message: &Message, view: &dyn View) -> Outcome {
        rules::process(message, view)
    }

    fn withdraw(message: &Message, why: Withdrawal, view: &dyn View) -> Vec<Write> {
        rules::withdraw(message, why, view)
    }

    fn price(_message: &Message, _view: &dyn View) -> Result<Option<Costs>, Rejection> {
        Ok(None)
    }

    fn query(request: &Request, view: &dyn View) -> Response {
        query::answer(request, view)
    }
}

plugin_sdk::handler!(Aggregate, "../manifest.json");
