//! What the node says of itself, as lists and scoring read it.

use crate::{
    answer::{expect, expect_json},
    stage,
};
use anyhow::{Result, ensure};

pub(crate) fn about() -> Result<()> {
    let network = stage::network()?;
    let client = network.client();
    let hash = network.binary("plain", 60, serde_json::json!({}))?;
    expect(200, client.get(&format!("/vm/{hash}/"))?)?;

    let usage = expect_json(200, client.get("/about/usage/system")?)?;
    for path in [
        "/cpu/count",
        "/cpu/load_average/load1",
        "/mem/total_kB",
        "/mem/available_kB",
        "/disk/total_kB",
        "/disk/available_kB",
        "/period/start_timestamp",
        "/period/duration_seconds",
        "/properties/cpu/architecture",
        "/properties/cpu/vendor",
    ] {
        ensure!(usage.pointer(path).is_some_and(|value| !value.is_null()), "{path} is not in {usage}");
    }
    ensure!(usage["active"] == true, "{usage}");

    let list = expect_json(200, client.get("/about/executions/list")?)?;
    ensure!(list[hash]["vm_type"] == "microvm", "{list}");
    let list = expect_json(200, client.get("/v2/about/executions/list")?)?;
    ensure!(list[hash]["running"] == true && list[hash]["status"]["started_at"].is_string(), "{list}");
    let config = expect_json(200, client.get("/status/config")?)?;
    ensure!(config["references"]["API_SERVER"].is_string() && config["version"].is_string(), "{config}");

    // The node's own errors are JSON, whatever is asked.
    let answer = client.get("/about/nothing")?;
    ensure!(answer.header("server").is_some_and(|server| server.starts_with("aleph-vm/")), "{:?}", answer.headers);
    ensure!(expect_json(404, answer)?["error"] == "404: Not Found");
    Ok(())
}
