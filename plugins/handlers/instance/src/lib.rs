//! What INSTANCE messages mean: a machine of its owner's own that always runs, on a disk that starts as an image (messages spec 6 and 7, ccn spec
//! 2.4 and 6).

mod rules;

use plugin_sdk::{
    Costs, Handler, Message, Outcome, Plan, Rejection, Request, Response, View, Withdrawal, Write, answer,
};

/// The message type INSTANCE.
#[derive(Debug)]
pub struct Instance;

impl Handler for Instance {
    fn validate(message: &Message) -> Result<Plan, Rejection> {
        rules::validate(message)
    }

    fn process(message: &Message, view: &dyn View) -> Outcome {
        rules::process(message, view)
    }

    fn withdraw(message: &Message, _why: Withdrawal, _view: &dyn View) -> Vec<Write> {
        rules::withdraw(message)
    }

    fn price(message: &Message, view: &dyn View) -> Result<Option<Costs>, Rejection> {
        rules::price(message, view).map(Some)
    }

    fn query(_request: &Request, _view: &dyn View) -> Response {
        answer::error(404, "no such route")
    }
}

plugin_sdk::handler!(Instance, "../manifest.json");
