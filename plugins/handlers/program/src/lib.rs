//! What PROGRAM messages mean: a function that a compute node runs, made of files that STORE messages hold (messages spec 6, ccn spec 2.4 and 6).

mod query;
mod rules;

use plugin_sdk::{Costs, Handler, Message, Outcome, Plan, Rejection, Request, Response, View, Withdrawal, Write};

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

    fn query(request: &Request, view: &dyn View) -> Response {
        query::answer(request, view)
    }
}

plugin_sdk::handler!(Program, "../manifest.json");
