//! Same inputs, same bytes: each runtime is built a second time, elsewhere, from the manifest of the first.
//!
//! Runs for the runtimes that this machine has built before, and says which those are not.

use images::{Cache, State};

#[test]
fn runtimes_are_the_same_bytes_when_built_again() {
    let cache = Cache::open().expect("a cache");
    let outputs = cache.outputs().expect("a report");
    for name in ["base", "python"] {
        let built = outputs
            .iter()
            .any(|output| output.name == format!("runtime {name}") && matches!(output.state, State::Built { .. }));
        if !built {
            eprintln!("{name}: not run: it was never built here (`cargo xtask images` does)");
            continue;
        }
        let verified = cache.verify_rootfs(name, &()).expect(name);
        assert_eq!(verified.digest.len(), 64, "{name}");
    }
}
