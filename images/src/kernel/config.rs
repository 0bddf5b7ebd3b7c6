//! Our configuration of the guest kernel: fragments with a reason per line, laid over each other,
//! and the check that Kconfig kept what they say.

use std::collections::BTreeMap;

/// What holds for every guest kernel.
pub(crate) const BASE: &str = include_str!("../../kernel/base.config");
/// What holds for kernels that serve several virtual processors.
pub(crate) const SMP: &str = include_str!("../../kernel/smp.config");

/// Option names (with `CONFIG_`) and values, as `.config` writes them; `n` for off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configuration(BTreeMap<String, String>);

impl Configuration {
    /// Lays fragments over each other: later ones win.
    pub(crate) fn of(fragments: &[&str]) -> Result<Self, String> {
        let mut options = BTreeMap::new();
        for fragment in fragments {
            let mut own = BTreeMap::new();
            for line in fragment.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (option, value) = parse(line).ok_or_else(|| line.to_owned())?;
                if own.insert(option.to_owned(), value.to_owned()).is_some() {
                    return Err(format!("{option} twice in one fragment"));
                }
            }
            options.append(&mut own);
        }
        Ok(Self(options))
    }

    /// The text for `KCONFIG_ALLCONFIG`.
    pub(crate) fn to_text(&self) -> String {
        self.0.iter().map(|(option, value)| format!("{option}={value}\n")).collect()
    }

    /// The lines of ours that a finished `.config` contradicts: Kconfig drops silently what lacks
    /// a dependency, and switches on what something else selects.
    pub(crate) fn lost_in(&self, config: &str) -> Vec<String> {
        let kept: BTreeMap<&str, &str> = config.lines().filter_map(|line| line.split_once('=')).collect();
        let differs =
            |(option, value): &(&String, &String)| *kept.get(option.as_str()).unwrap_or(&"n") != value.as_str();
        let lost = self.0.iter().filter(differs);
        lost.map(|(option, value)| format!("{option}={value}")).collect()
    }
}

/// Reads `CONFIG_X=value   # reason`. A line without a reason is refused.
fn parse(line: &str) -> Option<(&str, &str)> {
    let (option, rest) = line.split_once('=')?;
    let (value, reason) = rest.split_once('#')?;
    let known = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let named = option.starts_with("CONFIG_") && option.chars().all(known);
    (named && !value.trim().is_empty() && !reason.trim().is_empty()).then_some((option, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_our_fragments_has_a_reason() {
        Configuration::of(&[BASE, SMP]).expect("each line is an option, a value and a reason");
        for line in ["CONFIG_X=y", "CONFIG_X=y #", "X=y # why", "CONFIG_X= # why", "CONFIG_X y # why"] {
            assert_eq!(Configuration::of(&[line]), Err(line.to_owned()));
        }
    }

    #[test]
    fn later_fragments_win_and_repetition_is_refused() {
        let laid = Configuration::of(&["CONFIG_A=y # a\nCONFIG_B=1 # b", "CONFIG_A=n # not here"]);
        assert_eq!(laid.expect("two fragments").to_text(), "CONFIG_A=n\nCONFIG_B=1\n");
        assert!(Configuration::of(&["CONFIG_A=y # a\nCONFIG_A=n # b"]).is_err());
    }

    #[test]
    fn what_kconfig_did_not_keep_is_found() {
        let wanted = "CONFIG_A=y # a\nCONFIG_B=n # b\nCONFIG_C=\"x\" # c\nCONFIG_D=n # d\nCONFIG_E=64 # e";
        let ours = Configuration::of(&[wanted]).expect("a fragment");
        let config = "CONFIG_B=y\nCONFIG_C=\"x\"\n# CONFIG_D is not set\nCONFIG_E=8\nCONFIG_OTHER=y\n";
        assert_eq!(ours.lost_in(config), ["CONFIG_A=y", "CONFIG_B=n", "CONFIG_E=64"]);
    }
}
