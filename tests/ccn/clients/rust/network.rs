//! Flows of the network itself: its prices, its nodes, and what their operators say.

use super::{json, submit};
use crate::ccn::clients::{CRN, Clients};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json as value};
use std::path::PathBuf;

pub(super) fn prices(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(5)?;
    for (words, field, expected) in [
        (&["--size", "1vcpu-2gb"][..], "total_credits_per_hour", value!(14250.0)),
        (&["--size", "4vcpu-8gb"], "total_credits_per_hour", value!(57000.0)),
        (&["--size", "1vcpu-2gb"], "disk_mib", value!(20480)),
        (&["--size", "1vcpu-2gb", "--confidential"], "total_credits_per_hour", value!(28500.0)),
        // Three units of a standard one.
        (&["--gpu", "rtx4000-ada"], "compute_credits_per_hour", value!(129_375.0)),
    ] {
        let price = json(&somebody, &[&["instance", "price"], words].concat())?;
        ensure!(price[field] == expected, "{words:?}: {field} is not {expected}: {price:#}");
    }
    somebody.complains(1, &["instance", "price", "--size", "0vcpu-0gb"], &["1vcpu-2gb"])?;
    somebody.complains(0, &["instance", "price", "--list-gpus"], &["standard tier", "premium tier", "h100"])
}

pub(super) fn nodes(clients: &Clients<PathBuf>) -> Result<()> {
    let somebody = clients.somebody(6)?;
    let node = clients.compute_node()?;
    let listed = json(&somebody, &["node", "list", "--all"])?;
    let nodes: Vec<&Value> = listed.as_array().into_iter().flatten().collect();
    let [core, compute] = nodes.as_slice() else { anyhow::bail!("one core and one compute node: {listed:#}") };
    ensure!(core["type"] == "ccn" && core["name"] == "development node", "{core:#}");
    ensure!(compute["type"] == "crn" && compute["hash"] == node && compute["address"] == CRN, "{compute:#}");
    let mine = ["node", "list", "--address", &somebody.account().address];
    ensure!(json(&somebody, &mine)? == value!([]), "there are nodes of theirs from the start");

    // What operators say are posts; who reads them is no part of a node.
    let core = core["hash"].as_str().context("a node has a hash")?;
    for (words, action) in [
        (&["create-ccn", "mine", "--multiaddress", "/ip4/127.0.0.1/tcp/4025"][..], "create-node"),
        (&["create-crn", "mine", "--url", "https://crn.example.org"], "create-resource-node"),
        (&["link", "--crn", &node], "link"),
        (&["unlink", "--crn", &node], "unlink"),
        (&["stake", "--node", core], "stake-split"),
        (&["unstake", "--node", core], "unstake"),
        (&["amend", "--node", core, "--description", "a node"], "amend"),
        (&["drop", "--node", core], "drop-node"),
    ] {
        let hash = submit(clients, &somebody, &[&["node"], words].concat())?;
        let content = clients.message(&hash)?["message"]["content"].take();
        ensure!(content["type"] == "corechan-operation", "{content:#}");
        ensure!(content["content"]["action"] == action && content["content"]["tags"][1] == "local", "{content:#}");
    }
    Ok(())
}
