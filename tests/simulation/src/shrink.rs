//! From a history in which two orders differ to the few messages with which they still do.

use crate::{
    differences,
    history::{History, What},
    play::{self, Step},
    told,
};
use anyhow::Result;
use ccn::host::Plugins;
use std::{fmt::Write as _, sync::Arc};

/// Plays that are spent on it.
const MAX_PLAYS: usize = 600;
/// Longest answer that is shown, characters.
const MAX_SHOWN: usize = 600;

/// Cuts the steps of two orders down, and tells what is left.
pub(crate) async fn shrink(
    plugins: &Arc<Plugins>,
    history: &History,
    first: Vec<Step>,
    second: Vec<Step>,
) -> Result<String> {
    let mut kept = (first, second);
    let mut plays = 0;
    let mut items: Vec<usize> = (0..history.items.len()).collect();
    // Without what was put in between, if that is not it.
    let bare =
        |steps: &[Step]| steps.iter().filter(|step| matches!(step, Step::Arrives(_))).cloned().collect::<Vec<_>>();
    let plain = (bare(&kept.0), bare(&kept.1));
    if differ(plugins, history, &plain, &items).await? {
        kept = plain;
    }
    let mut size = items.len().div_ceil(2);
    while size >= 1 && plays < MAX_PLAYS {
        let mut start = 0;
        let before = items.len();
        while start < items.len() && plays < MAX_PLAYS {
            let end = (start + size).min(items.len());
            let fewer: Vec<usize> = items[..start].iter().chain(&items[end..]).copied().collect();
            let candidate = (of(&kept.0, &fewer), of(&kept.1, &fewer));
            plays += 2;
            if differ(plugins, history, &candidate, &fewer).await? {
                (items, kept) = (fewer, candidate);
            } else {
                start = end;
            }
        }
        if size == 1 && items.len() == before {
            break;
        }
        size = if size == 1 { 1 } else { size / 2 };
    }
    report(plugins, history, &kept, &items).await
}

/// The steps of these items, and those of none.
fn of(steps: &[Step], items: &[usize]) -> Vec<Step> {
    let is_kept = |step: &&Step| match step {
        Step::Arrives(item)
        | Step::Again(item)
        | Step::Forged(item)
        | Step::Misattributed(item)
        | Step::Altered(item) => items.contains(item),
        Step::Restart | Step::PowerCut => true,
    };
    steps.iter().filter(is_kept).cloned().collect()
}

/// The history of these items: nobody asks about others.
fn history_of(history: &History, items: &[usize]) -> History {
    let mut smaller = history.clone();
    for (place, item) in smaller.items.iter_mut().enumerate() {
        if !items.contains(&place) {
            item.what = What::File(Vec::new());
        }
    }
    smaller
}

async fn differ(
    plugins: &Arc<Plugins>,
    history: &History,
    steps: &(Vec<Step>, Vec<Step>),
    items: &[usize],
) -> Result<bool> {
    let history = history_of(history, items);
    let one = play::play(plugins, &history, &steps.0).await?;
    Ok(one != play::play(plugins, &history, &steps.1).await?)
}

async fn report(
    plugins: &Arc<Plugins>,
    history: &History,
    steps: &(Vec<Step>, Vec<Step>),
    items: &[usize],
) -> Result<String> {
    let smaller = history_of(history, items);
    let one = play::play(plugins, &smaller, &steps.0).await?;
    let other = play::play(plugins, &smaller, &steps.1).await?;
    let mut text = format!("one order:\n{}\nthe other:\n{}\n", told(history, &steps.0), told(history, &steps.1));
    let shown = |value: &str| value.chars().take(MAX_SHOWN).collect::<String>();
    for (name, one, other) in differences(&one, &other) {
        writeln!(text, "{name}\n  one:   {}\n  other: {}", shown(&one), shown(&other))?;
    }
    for item in items {
        if let What::Message(json, hash) = &history.items[*item].what {
            writeln!(text, "{}: {hash}\n  {json}", history.items[*item].label)?;
        }
    }
    Ok(text)
}
