//! Which GPUs are charged as what (ccn spec 6.2 and 6.3).

use super::{OWNER_SETTING, Prices, Product, current};
use crate::{View, layout::aggregate};
use ccn_message::json::{FormatError, Object, Value};

/// Where the models are published.
const KEY: &str = "settings";
const SUBKEY: &str = "compatible_gpus";
/// Most devices of that list.
const MAX_DEVICES: usize = 10_000;
/// The built-in list: a model and its devices.
const MODELS: [(&str, &[&str]); 6] = [
    ("L40S", &["10de:26b9"]),
    ("RTX 4090", &["10de:2684", "10de:2685"]),
    ("RTX 3090", &["10de:2203", "10de:2204"]),
    ("RTX 4000 ADA", &["10de:27b0", "10de:27b2"]),
    ("H100", &["10de:22a3", "10de:2313", "10de:2330", "10de:2331", "10de:2336"]),
    ("A100", &["10de:2080", "10de:2081", "10de:20b2", "10de:20b5", "10de:20b8"]),
];

/// How some GPUs are charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus {
    /// The product that the machine is: premium unless all are of the standard models.
    pub dominant: (Product, Prices),
    /// Compute units by product, those that are used; the dominant one first.
    pub units: Vec<(Product, Prices, u64)>,
    /// Prices of storage beside them.
    pub storage: Prices,
}

/// Charges a machine with these devices that would have `compute_units` of a product without them. A device that the network does not list counts
/// as premium and brings no units of its own: what it costs, its size decides.
pub fn gpus(devices: &[String], view: &dyn View, compute_units: impl Fn(&Prices) -> u64) -> Gpus {
    let (premium, standard) = (current(view, Product::GpuPremium), current(view, Product::GpuStandard));
    let published = published(view);
    let (mut premium_units, mut standard_units, mut is_premium) = (0_u64, 0_u64, false);
    for device in devices {
        let model = model(device, published.as_deref());
        let units = |prices: &Prices| {
            let found = prices.models.iter().find(|(name, _)| Some(name) == model.as_ref());
            found.map(|(_, units)| *units)
        };
        if let Some(units) = units(&standard) {
            standard_units = standard_units.saturating_add(units);
        } else {
            is_premium = true;
            premium_units = premium_units.saturating_add(units(&premium).unwrap_or_default());
        }
    }
    let dominant =
        if is_premium { (Product::GpuPremium, premium.clone()) } else { (Product::GpuStandard, standard.clone()) };
    let excess = compute_units(&dominant.1).saturating_sub(premium_units.saturating_add(standard_units));
    let mut units = Vec::new();
    if is_premium {
        units.push((Product::GpuPremium, premium.clone(), premium_units.saturating_add(excess)));
    } else {
        standard_units = standard_units.saturating_add(excess);
    }
    if standard_units > 0 {
        units.push((Product::GpuStandard, standard, standard_units));
    }
    Gpus { dominant, units, storage: premium }
}

fn model(device: &str, published: Option<&[(String, String)]>) -> Option<String> {
    match published {
        Some(list) => list.iter().find(|(each, _)| each == device).map(|(_, model)| model.clone()),
        None => MODELS.iter().find(|(_, devices)| devices.contains(&device)).map(|(model, _)| (*model).to_owned()),
    }
}

/// Devices and their models; none when no list is published that can be read.
fn published(view: &dyn View) -> Option<Vec<(String, String)>> {
    let owner = view.setting(OWNER_SETTING)?;
    let json = aggregate::value_in(view, &owner, KEY, SUBKEY)?;
    read_devices(&format!(r#"{{"list":{json}}}"#)).ok()
}

/// An entry that says nothing does not harm the others.
fn read_devices(json: &str) -> Result<Vec<(String, String)>, FormatError> {
    let entries = Object::parse(json)?.required("list", |value| value.list(MAX_DEVICES))?;
    let read = |entry: Value<'_>| -> Result<(String, String), FormatError> {
        let mut object = entry.object()?;
        Ok((object.required("device_id", Value::string)?, object.required("model", Value::string)?))
    };
    Ok(entries.into_iter().filter_map(|entry| read(entry).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryView, layout::Moment};

    fn check(view: &MemoryView, devices: &[&str], size: u64, expect: &[(Product, u64)]) {
        let devices: Vec<String> = devices.iter().map(|device| (*device).to_owned()).collect();
        let units = gpus(&devices, view, |_| size).units;
        let units: Vec<(Product, u64)> = units.into_iter().map(|(product, _, units)| (product, units)).collect();
        assert_eq!(units, expect, "{devices:?} {size}");
    }

    #[test]
    fn units_are_those_of_the_models_and_of_the_size() {
        use Product::{GpuPremium, GpuStandard};
        let mut view = MemoryView::new("instance");
        check(&view, &["10de:27b0"], 1, &[(GpuStandard, 3)]);
        check(&view, &["10de:27b0", "10de:26b9"], 4, &[(GpuStandard, 15)]);
        check(&view, &["10de:27b0"], 10, &[(GpuStandard, 10)]);
        check(&view, &["10de:27b0", "10de:2330"], 1, &[(GpuPremium, 24), (GpuStandard, 3)]);
        check(&view, &["10de:27b0", "10de:2330"], 30, &[(GpuPremium, 27), (GpuStandard, 3)]);
        check(&view, &["none"], 5, &[(GpuPremium, 5)]);
        view.settings.insert(OWNER_SETTING.into(), "0xF".into());
        let json = r#"[{"device_id":"none","model":"H100"},5,{"model":"A100"}]"#;
        let value = aggregate::Current { moment: Moment { time: 1.0, item_hash: "h".into() }, subkey: SUBKEY, json };
        let key = aggregate::current("0xF", KEY, SUBKEY);
        view.state.insert((aggregate::NAMESPACE.into(), key), value.to_bytes());
        check(&view, &["none"], 5, &[(GpuPremium, 24)]);
        check(&view, &["10de:27b0"], 5, &[(GpuPremium, 5)]);
    }
}
