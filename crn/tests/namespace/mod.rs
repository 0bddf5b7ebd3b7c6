//! Tests in a network namespace of their own. `guest-init` has this file too: what it sets up is a network as well.

use std::process::Command;

/// Says that the process has a namespace of its own.
const INSIDE: &str = "BETH_TEST_NAMESPACE";

/// Runs the test of that name in a process with a network namespace of its own. True when this is that process.
pub(crate) fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net"]);
        command
    };
    match unshare().arg("true").output() {
        Ok(output) if output.status.success() => {}
        other => {
            eprintln!("not run: no network namespace can be made here ({other:?})");
            return false;
        }
    }
    let program = std::env::current_exe().expect("this program has a path");
    let output = unshare()
        .arg(program)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare was there before");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    false
}
