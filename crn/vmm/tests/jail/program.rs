//! The program itself, as its supervisor sees it in `/proc`.

use crate::{OWN_ID, end_of};
use libtest_mimic::Failed;
use rustix::process::geteuid;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};
use vmm::{
    control::{Cause, Notice},
    jail::Place,
    supervisor,
};

/// Every kind of namespace that a monitor has of its own.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Starts a monitor as a compute node does, looks at it from outside, and ends it before its first order.
pub(crate) fn waits_for_orders_in_the_jail() -> Result<(), Failed> {
    let id = geteuid().is_root().then_some(OWN_ID);
    let place = Place { id, cgroup: None };
    let (link, mut launcher) = supervisor::spawn(Path::new(env!("CARGO_BIN_EXE_vmm")), &place, Stdio::inherit())?;
    let (process_id, process) = match link.notice()? {
        (Notice::Jailed { process_id }, Some(process)) => (process_id, process),
        // Without KVM there is no monitor to look at; the jail itself is tried by the acts.
        (Notice::Ended { cause: Cause::Failed(reason), .. }, None) if reason.contains("/dev/kvm") => {
            assert!(!launcher.wait()?.success());
            return Ok(());
        }
        other => return Err(format!("{other:?}").into()),
    };
    assert!(launcher.wait()?.success(), "the launcher ends once there is a monitor");

    let of_monitor = PathBuf::from(format!("/proc/{process_id}"));
    // It enters while this looks: capabilities go when the rest of what is looked at has gone.
    let status = loop {
        let status = status_of(&of_monitor)?;
        if status["CapBnd"] == "0000000000000000" && status["CapEff"] == "0000000000000000" {
            break status;
        }
        if status["State"].starts_with('Z') {
            return Err("the monitor ended before it was in the jail".into());
        }
        std::thread::yield_now();
    };
    let user = id.unwrap_or(geteuid().as_raw());
    assert_eq!(status["PPid"], std::process::id().to_string(), "it is a child of its supervisor");
    assert_eq!(status["Uid"], [user.to_string(), user.to_string(), user.to_string(), user.to_string()].join("\t"));
    if id.is_some() {
        assert_eq!(status["Gid"], status["Uid"]);
        assert_eq!(status["Groups"], "");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["NSpid"], format!("{process_id}\t1"), "it is the first process of its namespace");
    if geteuid().is_root() {
        for kind in NAMESPACES {
            let of = |process: &Path| fs::read_link(process.join("ns").join(kind));
            assert_ne!(of(&of_monitor)?, of(Path::new("/proc/self"))?, "{kind}");
        }
        assert_eq!(fs::read_dir(of_monitor.join("root"))?.count(), 0, "its root is empty");
        let mut open: Vec<_> = fs::read_dir(of_monitor.join("fd"))?
            .map(|descriptor| Ok(fs::read_link(descriptor?.path())?.to_string_lossy().into_owned()))
            .collect::<Result<_, std::io::Error>>()?;
        open.sort();
        let sockets = open.iter().filter(|name| name.starts_with("socket:")).count();
        assert!(open.contains(&"/dev/kvm".to_owned()) && open.contains(&"/dev/null".to_owned()), "{open:?}");
        // Of `/proc`, which has been left: what says which of its own pages there are.
        assert!(open.contains(&format!("/{process_id}/pagemap")), "{open:?}");
        // Beside that standard input and its duplicate, standard output and error, KVM.
        assert!(sockets == 2 && open.len() == 6, "{open:?}");
    }
    link.hang_up()?;
    assert_eq!(end_of(&process)?, (Some(0), None), "without an order it ends");
    Ok(())
}

/// A supervisor that is not root cannot give ids away: the monitor says so, and is not left behind.
pub(crate) fn an_id_that_is_not_to_be_had_is_refused() -> Result<(), Failed> {
    // Out of the range of ids, whoever asks.
    let place = Place { id: Some(u32::MAX), cgroup: None };
    refused(&place, &["map its", "/dev/kvm", "leave the groups"])
}

/// A control group that is not there, and a folder that is none.
pub(crate) fn a_control_group_that_is_not_there_is_refused() -> Result<(), Failed> {
    for folder in ["/sys/fs/cgroup/no/such/group", "/"] {
        refused(&Place { id: None, cgroup: Some(folder.into()) }, &["control group", "/dev/kvm"])?;
    }
    Ok(())
}

fn refused(place: &Place, reasons: &[&str]) -> Result<(), Failed> {
    let (link, mut launcher) = supervisor::spawn(Path::new(env!("CARGO_BIN_EXE_vmm")), place, Stdio::null())?;
    let mut handed_over = None;
    let cause = loop {
        match link.notice()? {
            (Notice::Jailed { .. }, process) => handed_over = process,
            (Notice::Ended { cause, .. }, _) => break cause,
            (other, _) => return Err(format!("{other:?}").into()),
        }
    };
    let said = matches!(&cause, Cause::Failed(reason) if reasons.iter().any(|part| reason.contains(part)));
    assert!(said, "{cause:?}");
    assert!(!launcher.wait()?.success());
    if let Some(process) = handed_over {
        assert_ne!(end_of(&process)?, (Some(0), None));
    }
    Ok(())
}

fn status_of(process: &Path) -> std::io::Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(process.join("status"))?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    Ok(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}
