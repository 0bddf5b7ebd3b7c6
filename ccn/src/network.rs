//! The network that a node is of: names and addresses that are the same on every node of it. Plugins read them as settings.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is the same on every node of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Its name. A data folder belongs to one network.
    pub name: String,
    /// Whose posts give and use up credits.
    pub credit_treasury: Vec<String>,
    /// Who hands on credits without having them.
    pub credit_minters: Vec<String>,
    /// The channel of such posts.
    pub credit_channel: String,
    /// Whose posts say how many tokens there are on a chain.
    pub balance_publishers: Vec<String>,
    /// Whose posts say what was measured of nodes.
    pub metrics_publishers: Vec<String>,
    /// The channel of such posts.
    pub metrics_channel: String,
    /// Whose aggregates say what things cost.
    pub pricing_owner: String,
    /// Whose aggregate lists the nodes.
    pub corechannel_owner: String,
    /// From which height of the block that first confirmed a message on its owner must go on holding the tokens that it costs (ccn spec 6.6).
    pub paid_from_height: u64,
    /// Further settings for plugins, by name.
    pub settings: BTreeMap<String, String>,
    /// Message types whose plugin the network has agreed on, each with the sha256 of that plugin's file.
    pub plugins: BTreeMap<String, String>,
}

impl Default for Network {
    fn default() -> Self {
        let list = |addresses: &[&str]| addresses.iter().map(|address| (*address).to_owned()).collect();
        Self {
            name: "mainnet".into(),
            credit_treasury: list(&["0x2E4454fAD1906c0Ce6e45cBFA05cE898Ac3AC1dC"]),
            // The public list is not published; the treasury is on it by its role.
            credit_minters: list(&["0x2E4454fAD1906c0Ce6e45cBFA05cE898Ac3AC1dC"]),
            credit_channel: "ALEPH_CREDIT".into(),
            balance_publishers: list(&[
                "0xB34f25f2c935bCA437C061547eA12851d719dEFb",
                "0xa1B3bb7d2332383D96b7796B908fB7f7F3c2Be10",
            ]),
            metrics_publishers: list(&[
                "0x4D52380D3191274a04846c89c069E6C3F2Ed94e4",
                "0x4Ec8b55e73F5f32118a90B8FD555706bD5dd42e7",
            ]),
            metrics_channel: "aleph-scoring".into(),
            pricing_owner: "0xFba561a84A537fCaa567bb7A2257e7142701ae2A".into(),
            corechannel_owner: "0xa1B3bb7d2332383D96b7796B908fB7f7F3c2Be10".into(),
            paid_from_height: 22_196_000,
            settings: BTreeMap::new(),
            plugins: BTreeMap::new(),
        }
    }
}

impl Network {
    /// The settings that plugins can read, by name. Lists have commas.
    #[must_use]
    pub fn settings(&self) -> BTreeMap<String, String> {
        let mut settings = self.settings.clone();
        settings.extend([
            ("network".to_owned(), self.name.clone()),
            ("credits.treasury".to_owned(), self.credit_treasury.join(",")),
            ("credits.whitelist".to_owned(), self.credit_minters.join(",")),
            ("credits.channel".to_owned(), self.credit_channel.clone()),
            ("balances.publishers".to_owned(), self.balance_publishers.join(",")),
            ("metrics.publishers".to_owned(), self.metrics_publishers.join(",")),
            ("metrics.channel".to_owned(), self.metrics_channel.clone()),
            ("pricing.owner".to_owned(), self.pricing_owner.clone()),
            ("corechannel.owner".to_owned(), self.corechannel_owner.clone()),
        ]);
        settings
    }
}
