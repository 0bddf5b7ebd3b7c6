//! What STORE messages mean: a file is kept, as the newest version of a tag if no later one is known (messages spec 5, ccn spec 2.3).

mod query;
mod rules;

use plugin_sdk::{Costs, Handler, Message, Outcome, Plan, Rejection, Request, Response, View, Withdrawal, Write};

/// The message type STORE.
#[derive(Debug)]
pub struct Store;

impl Handler for Store {
    fn validate(message: &Message) -> Result<Plan, Rejection> {
        rules::validate(message)
    }

    fn process(message: &Message, view: &dyn View) -> Outcome {
        rules::process(message, view)
    }

    fn withdraw(message: &Message, why: Withdrawal, view: &dyn View) -> Vec<Write> {
        rules::withdraw(message, why, view)
    }

    fn price(message: &Message, view: &dyn View) -> Result<Option<Costs>, Rejection> {
        rules::price(message, view).map(Some)
    }

    fn query(request: &Request, view: &dyn View) -> Response {
        query::answer(request, view)
    }
}

plugin_sdk::handler!(Store, "../manifest.json");
