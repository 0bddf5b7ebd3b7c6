//! What FORGET messages mean: other messages go, if whoever says so could have created them (messages spec 5, ccn spec 2.6).

mod rules;

use plugin_sdk::{
    Costs, Handler, Message, Outcome, Plan, Rejection, Request, Response, View, Withdrawal, Write, answer,
};

/// The message type FORGET.
#[derive(Debug)]
pub struct Forget;

impl Handler for Forget {
    fn validate(message: &Message) -> Result<Plan, Rejection> {
        rules::validate(message)
    }

    fn process(message: &Message, view: &dyn View) -> Outcome {
        rules::process(message, view)
    }

    fn withdraw(_message: &Message, _why: Withdrawal, _view: &dyn View) -> Vec<Write> {
        // It has no state of its own: what it forgets, the node knows.
        Vec::new()
    }

    fn price(_message: &Message, _view: &dyn View) -> Result<Option<Costs>, Rejection> {
        Ok(None)
    }

    fn query(_request: &Request, _view: &dyn View) -> Response {
        answer::error(404, "no such route")
    }
}

plugin_sdk::handler!(Forget, "../manifest.json");
