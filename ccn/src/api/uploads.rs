//! The routes of uploads: what each takes and answers (ccn spec 5.5).

use super::{
    archive,
    download::BYTES,
    reference::{Group, Operation, Shape},
    routes::Routes,
    upload,
};

/// The form of bodies in parts.
const PARTS: &str = "multipart/form-data";

pub(super) fn routes(routes: Routes) -> Routes {
    let metadata = Shape::text().about(
        "JSON `{\"message\": …, \"sync\": …}`: the signed STORE message that keeps the file, and whether to wait for its verdict.",
    );
    // No format: every text is the bytes of some file.
    let file = || Shape::text().about("The bytes.");
    let parts = || Shape::open_object([("file", file()), ("metadata", metadata.clone().optional())]);
    let stored = Shape::object([
        ("status", Shape::words(&["success"])),
        ("hash", Shape::hash()),
        ("message_status", Shape::words(&["pending", "processed", "removing"]).optional()),
    ]);
    let named = stored.clone().and([("name", Shape::text()), ("size", Shape::whole().about("Bytes."))]);
    let sized = stored.clone().and([("size", Shape::whole().about("Bytes."))]);
    let operation = |summary, answer: &Shape| {
        Operation::new(Group::Files, summary)
            .answers("The name of what is stored.", answer)
            .refuses(400, "The body is broken, or lacks the file.")
            .refuses(408, "The upload stood still.")
    };
    let with_message = |operation: Operation, answer: &Shape| {
        operation
            .answers_with(202, "It is stored; its message waits.", "application/json", answer)
            .refuses(402, "Whoever it is for cannot pay.")
            .refuses(403, "The message is not rightly signed.")
            .refuses(410, "The message was forgotten or removed.")
    };
    let of_file = with_message(operation("Stores a file", &stored), &stored)
        .about("Without a message that keeps it, it stays for a day.")
        .takes_as(PARTS, &parts())
        .takes_as(BYTES, &file())
        .or_nothing();
    let of_ipfs_file = with_message(operation("Stores a file under its CID", &named), &named)
        .about("Without a message that keeps it, it stays for a day.")
        .takes_as(PARTS, &parts());
    let of_archive = with_message(operation("Stores a folder, as an archive of its blocks (CAR)", &sized), &sized)
        .takes_as(PARTS, &Shape::open_object([("file", file()), ("metadata", metadata.clone())]));
    let of_json = |summary, answer: &Shape| {
        operation(summary, answer)
            .about("Compact, with its keys in order. It stays for a day.")
            .takes(&Shape::anything())
    };
    routes
        .post("/api/v0/storage/add_file", upload::storage_add_file, of_file)
        .post("/api/v0/storage/add_json", upload::storage_add_json, of_json("Stores a JSON value", &stored))
        .post("/api/v0/ipfs/add_file", upload::ipfs_add_file, of_ipfs_file)
        .post("/api/v0/ipfs/add_json", upload::ipfs_add_json, of_json("Stores a JSON value under its CID", &named))
        .post("/api/v0/ipfs/add_car", archive::add, of_archive)
}
