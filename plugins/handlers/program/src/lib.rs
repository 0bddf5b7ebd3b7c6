//! What PROGRAM messages mean: a function that a compute node runs, made of files that STORE messages hold (messages spec 6, ccn spec 2.4 and 6).

mod rules;

use plugin_sdk::{
    Costs, Handler, Message, Outcome, Plan, Rejection, Request, Response, View, Withdrawal, Write, answer,
};

/// The message type PROGRAM.
#[derive(Debug)]
pub struct Program;

impl Handler for Program {
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

plugin_sdk::handler!(Program, "../manifest.json");
