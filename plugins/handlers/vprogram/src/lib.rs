//! What V-PROGRAM messages mean: a machine of which everything that reaches it is measured, so that its users can hold it against what its owner
//! published (messages spec 7, ccn spec 2.5).

mod rules;

use plugin_sdk::{
    Costs, Handler, Message, Outcome, Plan, Rejection, Request, Response, View, Withdrawal, Write, answer,
};

/// The message type V-PROGRAM.
#[derive(Debug)]
pub struct VProgram;

impl Handler for VProgram {
    fn validate(message: &Message) -> Result<Plan, Rejection> {
        rules::validate(message)
    }

    fn process(message: &Message, view: &dyn View) -> Outcome {
        rules::process(message, view)
    }

    fn withdraw(_message: &Message, _why: Withdrawal, _view: &dyn View) -> Vec<Write> {
        // It leaves nothing in the state: what it uses, the node knows.
        Vec::new()
    }

    fn price(message: &Message, view: &dyn View) -> Result<Option<Costs>, Rejection> {
        rules::price(message, view).map(Some)
    }

    fn query(_request: &Request, _view: &dyn View) -> Response {
        answer::error(404, "no such route")
    }
}

plugin_sdk::handler!(VProgram, "../manifest.json");
