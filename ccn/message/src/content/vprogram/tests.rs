use super::*;
use proptest::prelude::*;

const HASH: &str = "5ccdd7bcdf7cc0d9a1f1b6c8a4ed3f4cfbe9b5e6cb5a9d1b0f4e6a7c8d9e0f11";

/// The members of a V-PROGRAM, of which a case replaces, adds or (with an empty text) leaves out some.
fn content(changes: &[(&str, &str)]) -> String {
    let (launch, volume) = ("a".repeat(96), format!(r#"{{"ref":"{HASH}","hash_tree":"{HASH}","roothash":"{HASH}"}}"#));
    let verification = format!(
        r#"{{"backend":"sev_snp","measurements":[{{"platform":"sev_snp","registers":{{"launch":"{launch}"}}}}]}}"#
    );
    let mut members: Vec<(&str, String)> = vec![
        ("address", r#""0xA""#.into()),
        ("time", "1.5".into()),
        ("allow_amend", "false".into()),
        ("environment", "{}".into()),
        ("resources", "{}".into()),
        ("payment", r#"{"type":"credit"}"#.into()),
        ("runtime", format!(r#"{{"ref":"{HASH}"}}"#)),
        ("workload", volume),
        ("verification", verification),
    ];
    for (name, value) in changes {
        members.retain(|(member, _)| member != name);
        if !value.is_empty() {
            members.push((name, (*value).to_owned()));
        }
    }
    let members: Vec<String> = members.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn check(changes: &[(&str, &str)], expect: Result<(), &str>) {
    let found = VProgramContent::parse(&content(changes)).map(|_| ()).map_err(|error| error.field);
    assert_eq!(found, expect.map_err(str::to_owned), "{changes:?}");
}

#[test]
fn numbers_and_booleans_are_strict() {
    check(&[], Ok(()));
    check(&[("time", "1")], Ok(()));
    check(&[("time", "\"1\"")], Err("time"));
    check(&[("allow_amend", "0")], Err("allow_amend"));
    check(&[("environment", r#"{"internet":"yes"}"#)], Err("environment.internet"));
    check(&[("environment", r#"{"internet":true}"#)], Ok(()));
    check(&[("environment", r#"{"hypervisor":"qemu"}"#)], Err("hypervisor").map_err(|_| "environment.hypervisor"));
    check(&[("resources", r#"{"vcpus":2.0}"#)], Err("resources.vcpus"));
    check(&[("resources", r#"{"memory":"4096"}"#)], Err("resources.memory"));
    check(&[("resources", r#"{"vcpus":2,"memory":4096,"seconds":30,"new":1}"#)], Ok(()));
}

#[test]
fn nothing_reaches_it_unmeasured() {
    check(&[("variables", "{}")], Ok(()));
    check(&[("variables", r#"{"A":"b"}"#)], Err("variables"));
    check(&[("authorized_keys", "[ ]")], Ok(()));
    check(&[("authorized_keys", r#"["ssh"]"#)], Err("authorized_keys"));
    check(&[("allow_amend", "true")], Err("allow_amend"));
    check(&[("replaces", "\"x\"")], Err("allow_amend"));
    check(&[("payment", r#"{"type":"hold"}"#)], Err("payment.type"));
    check(&[("payment", "")], Err("payment"));
    check(&[("requirements", r#"{"gpu":[]}"#)], Ok(()));
    let gpu = r#"{"gpu":[{"vendor":"n","device_name":"d","device_class":"0300","device_id":"x"}]}"#;
    check(&[("requirements", gpu)], Err("requirements.gpu"));
}

#[test]
fn what_is_measured_is_named_exactly() {
    let (digits, launch) = ("b".repeat(96), "a".repeat(96));
    let registers = format!(r#"{{"mrtd":"{digits}","rtmr1":"{digits}","rtmr2":"{digits}","mrconfigid":"{digits}"}}"#);
    let tdx = format!(r#"{{"platform":"tdx","registers":{registers}}}"#);
    let snp = |registers: &str| format!(r#"{{"platform":"sev_snp","registers":{registers}}}"#);
    let launch = snp(&format!(r#"{{"launch":"{launch}"}}"#));
    let verified =
        |backend: &str, more: &str, list: &str| format!(r#"{{"backend":"{backend}"{more},"measurements":[{list}]}}"#);
    let check_one = |verification: &str, expect: Result<(), &str>| check(&[("verification", verification)], expect);
    check_one(&verified("tdx", "", &tdx), Ok(()));
    check_one(&verified("tdx", r#","policy":null"#, &tdx), Ok(()));
    check_one(&verified("tdx", r#","policy":1"#, &tdx), Err("verification.policy"));
    check_one(&verified("tdx", "", &format!("{tdx},{tdx}")), Err("verification.measurements"));
    check_one(&verified("tdx", "", &launch), Err("verification.measurements[0].platform"));
    check_one(&verified("sev_snp", r#","policy":196608"#, &format!("{launch},{launch}")), Ok(()));
    check_one(&verified("sev_snp", r#","policy":null"#, &launch), Err("verification.policy"));
    check_one(&verified("sev_snp", r#","policy":1"#, &launch), Err("verification.policy"));
    check_one(&verified("sev_snp", r#","policy":196608.0"#, &launch), Err("verification.policy"));
    check_one(&verified("sev_snp", "", ""), Err("verification.measurements"));
    check_one(&verified("sev", "", &launch), Err("verification.backend"));
    let digest = r#"{"platform":"sev_snp","digest":"x"}"#;
    check_one(&verified("sev_snp", "", digest), Err("verification.measurements[0].registers"));
    check_one(
        &verified("sev_snp", "", &snp(r#"{"launch":"ab"}"#)),
        Err("verification.measurements[0].registers.launch"),
    );
    let gpu = r#"{"vendor":"nvidia","arch":"blackwell","count":1,"mode":"cc"}"#;
    check(&[("gpu", gpu)], Ok(()));
    check(&[("gpu", gpu), ("verification", &verified("tdx", "", &tdx))], Err("gpu"));
    let volume = |more: &str| format!(r#"{{"ref":"{HASH}","hash_tree":"{HASH}","roothash":"{HASH}"{more}}}"#);
    check(&[("volumes", &format!("[{}]", vec![volume(r#","comment":"x""#); 8].join(",")))], Ok(()));
    check(&[("volumes", &format!("[{}]", vec![volume(""); 9].join(",")))], Err("volumes"));
    check(&[("volumes", "null")], Err("volumes"));
    check(&[("workload", &volume(r#","comment":"x""#))], Err("workload.comment"));
    check(&[("runtime", &format!(r#"{{"ref":"{HASH}","use_latest":true}}"#))], Err("runtime.use_latest"));
}

#[test]
fn references_are_all_that_it_is_made_of() {
    let volume = format!(r#"[{{"ref":"{HASH}","hash_tree":"{HASH}","roothash":"{HASH}"}}]"#);
    let content = VProgramContent::parse(&content(&[("volumes", &volume)])).expect("a V-PROGRAM");
    assert_eq!(content.references().len(), 5);
}

proptest! {
    #[test]
    fn arbitrary_text_does_no_harm(name in "verification|volumes|gpu|workload|metadata", value in ".{0,200}") {
        let _ = VProgramContent::parse(&content(&[(name.as_str(), value.as_str())]));
    }
}
