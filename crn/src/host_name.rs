//! Programs by name: the first label of a host name is an item hash in base32 (spec: crn, section 3.1).

use ccn_message::ItemHash;
use data_encoding::{BASE32_NOPAD_NOCASE, Encoding, Specification};
use std::sync::LazyLock;

/// Lower case, which is how names are written.
static LOWER: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().expect("32 different symbols are an encoding")
});

/// The label of a program, at most 63 characters: base32 of the hash that the hex digits mean. A CID stands
/// for itself, in lower case.
#[must_use]
pub fn label(item_hash: &ItemHash) -> String {
    let text = item_hash.to_string();
    match hex::decode(&text) {
        Ok(bytes) => LOWER.encode(&bytes),
        // Only a CIDv0 has capital letters: they matter to the hash and are lost on a name.
        Err(_) => text.to_ascii_lowercase(),
    }
}

/// The program that a host name means: `label.domain`, with a port or without.
#[must_use]
pub fn program(host: &str) -> Option<ItemHash> {
    let label = host.split(['.', ':']).next()?;
    let bytes = BASE32_NOPAD_NOCASE.decode(label.as_bytes()).ok()?;
    if bytes.len() != 32 {
        return None;
    }
    hex::encode(bytes).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "d2b74aa29898457bde0560e47f7cdd4e77287e9f1f7a1456161d2fd7d5c855d7";
    const LABEL: &str = "2k3uviuytbcxxxqfmdsh67g5jz3sq7u7d55bivqwdux5pvoikxlq";

    fn check(host: &str, expected: Option<&str>) {
        assert_eq!(program(host).map(|hash| hash.to_string()).as_deref(), expected, "{host}");
    }

    #[test]
    fn a_label_means_its_program_and_back() {
        let hash: ItemHash = HASH.parse().expect("an item hash");
        assert_eq!(label(&hash), LABEL);
        check(&format!("{LABEL}.example.org"), Some(HASH));
        check(&format!("{LABEL}.localhost:4020"), Some(HASH));
        check(&LABEL.to_uppercase(), Some(HASH));
    }

    #[test]
    fn other_names_mean_none() {
        for host in
            ["", ".", "localhost", "127.0.0.1:4020", "www.example.org", "mfrgg", &format!("{LABEL}a"), "ünïcode"]
        {
            check(host, None);
        }
    }

    #[test]
    fn every_hash_has_a_label_that_fits_a_name() {
        for hash in [
            "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD",
            "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
        ] {
            let label = label(&hash.parse().expect("an item hash"));
            assert!(
                label.len() <= 63 && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
                "{label}"
            );
        }
    }
}
