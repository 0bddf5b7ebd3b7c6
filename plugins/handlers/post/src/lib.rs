//! What POST messages mean: free content that its owner may amend, and movements of credits and balances, and measurements of nodes, when
//! accounts of the network say so (messages spec 5, ccn spec 2.1 and 2.7).

mod element;
mod ledger;
mod listing;
mod measurements;
mod query;
mod rules;
mod state;

use plugin_sdk::{Costs, Handler, Message, Outcome, Plan, Rejection, Request, Response, View, Withdrawal, Write};

/// The message type POST.
#[derive(Debug)]
pub struct Post;

impl Handler for Post {
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
        if measurements::is_asked(request) { measurements::answer(request, view) } else { query::answer(request, view) }
    }
}

plugin_sdk::handler!(Post, "../manifest.json");
