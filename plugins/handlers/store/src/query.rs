//! Which file a STORE or a tag stands for: `/api/v0/storage/by-message-hash` and `by-ref` (ccn spec 5.5).

use plugin_sdk::{
    Request, Response, View, answer,
    layout::store::{self, owned_tag},
    message::{ItemHash, content::store::StoreContent},
};
use serde_json::json;

/// The type whose messages are described.
const KIND: &str = "STORE";

pub(crate) fn answer(request: &Request, view: &dyn View) -> Response {
    match request.route.as_str() {
        "/api/v0/storage/by-message-hash/{hash}" => by_message(answer::path(request, "hash"), view),
        "/api/v0/storage/by-ref/{ref}" => by_hash(answer::path(request, "ref"), view),
        "/api/v0/storage/by-ref/{address}/{ref}" => {
            let name = answer::path(request, "ref");
            match ItemHash::parse(name) {
                Ok(_) => by_tag(name, view),
                Err(_) => by_tag(&owned_tag(answer::path(request, "address"), name), view),
            }
        }
        _ => answer::error(404, "no such route"),
    }
}

fn by_message(hash: &str, view: &dyn View) -> Response {
    match ItemHash::parse(hash) {
        Ok(_) => describe(hash, view),
        Err(error) => answer::error(400, &error.to_string()),
    }
}

fn by_hash(tag: &str, view: &dyn View) -> Response {
    match ItemHash::parse(tag) {
        Ok(_) => by_tag(tag, view),
        Err(_) => answer::error(400, "a name needs its owner: /api/v0/storage/by-ref/<address>/<name>"),
    }
}

fn by_tag(tag: &str, view: &dyn View) -> Response {
    let newest = view.get(&store::latest(tag)).and_then(|value| Some(store::read_latest(&value)?.0.item_hash));
    match newest {
        Some(hash) => describe(&hash, view),
        None => answer::error(404, "no file has this reference"),
    }
}

fn describe(hash: &str, view: &dyn View) -> Response {
    let unknown = || answer::error(404, "no STORE message has this hash");
    let Some(stored) = view.message(hash).filter(|stored| stored.message.kind == KIND) else { return unknown() };
    let content = std::str::from_utf8(&stored.message.content).ok().and_then(|text| StoreContent::parse(text).ok());
    let Some(content) = content else { return unknown() };
    let file_hash = content.item_hash.to_string();
    let Some(file) = view.file(&file_hash) else { return unknown() };
    // Clients expect a text: a first version is known by its own hash.
    let reference = content.reference.as_deref().unwrap_or(hash);
    let body = json!({
        "ref": reference,
        "owner": stored.message.address,
        "file_hash": file_hash,
        "download_url": format!("/api/v0/storage/raw/{file_hash}"),
        "size": file.size,
    });
    answer::json_response(200, &body)
}

#[cfg(test)]
mod tests;
