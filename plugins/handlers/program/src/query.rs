//! Programs that want to be told of messages: `/api/v0/programs/on/message` (ccn spec 5.4).

use plugin_sdk::{
    Request, Response, View, answer,
    layout::{Moment, end_of, machine},
};
use serde_json::{Value, json};

/// Most programs in an answer.
const MAX_PROGRAMS: u32 = 1000;
/// The one parameter.
const ORDER: [&str; 2] = ["sort_order", "sortOrder"];

pub(crate) fn answer(request: &Request, view: &dyn View) -> Response {
    if let Some((unknown, _)) = request.parameters.iter().find(|(name, _)| !ORDER.contains(&name.as_str())) {
        return answer::error(400, &format!("`{unknown}` is no parameter here: there is sort_order alone"));
    }
    let newest_first = match answer::parameter(request, &ORDER) {
        None | Some("-1") => true,
        Some("1") => false,
        Some(other) => return answer::error(400, &format!("sort_order is 1 or -1, not `{other}`")),
    };
    let prefix = machine::listeners().done();
    let page = view.scan(&prefix, &end_of(&prefix), MAX_PROGRAMS, newest_first);
    let programs: Vec<Value> = page.items.iter().filter_map(|(key, value)| shown(&prefix, key, value)).collect();
    answer::json_response(200, &programs)
}

fn shown(prefix: &[u8], key: &[u8], value: &[u8]) -> Option<Value> {
    let moment = Moment::of_key(prefix, key)?;
    let subscriptions: Value = serde_json::from_slice(value).ok()?;
    Some(json!({"item_hash": moment.item_hash, "content": {"on": {"message": subscriptions}}}))
}

#[cfg(test)]
mod tests;
