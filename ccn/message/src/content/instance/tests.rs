use super::*;
use crate::content::program::ProgramContent;
use proptest::prelude::*;

const HASH: &str = "5ccdd7bcdf7cc0d9a1f1b6c8a4ed3f4cfbe9b5e6cb5a9d1b0f4e6a7c8d9e0f11";

fn instance(environment: &str, more: &str) -> String {
    format!(
        r#"{{"address":"0xA","time":1,"allow_amend":false,"environment":{environment},"resources":{{}},
            "rootfs":{{"parent":{{"ref":"{HASH}"}},"persistence":"host","size_mib":20480}}{more}}}"#
    )
}

/// An instance with that environment and more is right, or wrong in that field. Each was held against the network's own model, aleph-message
/// 1.7.0.
fn check(environment: &str, more: &str, expect: Result<(), &str>) {
    let found = InstanceContent::parse(&instance(environment, more)).map(|_| ()).map_err(|error| error.field);
    assert_eq!(found, expect.map_err(str::to_owned), "{environment}{more}");
}

fn trusted(more: &str) -> String {
    format!(r#"{{"hypervisor":"qemu","trusted_execution":{{{more}}}}}"#)
}

fn measured(mode: &str, registers: &str, more: &str) -> String {
    let measurement = format!(r#"{{"platform":"{mode}","registers":{registers}}}"#);
    trusted(&format!(r#""mode":"{mode}","runtime":"{HASH}","measurements":[{measurement}]{more}"#))
}

fn launch() -> String {
    format!(r#"{{"launch":"{}"}}"#, "a".repeat(96))
}

fn tdx() -> String {
    let digits = "b".repeat(96);
    format!(r#"{{"mrtd":"{digits}","rtmr1":"{digits}","rtmr2":"{digits}","mrconfigid":"{digits}"}}"#)
}

const CREDIT: &str = r#","payment":{"type":"credit"}"#;
const STREAM: &str = r#","payment":{"type":"superfluid"}"#;

#[test]
fn the_shape_is_checked() {
    check("{}", "", Ok(()));
    check("{}", r#","unknown":1"#, Err("unknown"));
    check("null", "", Err("environment"));
    check(r#"{"internet":null}"#, "", Err("environment.internet"));
    check(r#"{"hypervisor":"xen"}"#, "", Err("environment.hypervisor"));
    check("{}", r#","volumes":null"#, Err("volumes"));
    check("{}", r#","requirements":{"node":{"other":1}}"#, Err("requirements.node.other"));
    let addressed = |pattern: &str| format!(r#","requirements":{{"node":{{"address_regex":"{pattern}"}}}}"#);
    check("{}", &addressed("^https://[a-z]+[.]example[.]org/?$"), Ok(()));
    check("{}", &addressed("(?P<host>[a-z"), Err("requirements.node.address_regex"));
    check("{}", &addressed(&"a".repeat(257)), Err("requirements.node.address_regex"));
    check("{}", r#","requirements":{"gpu":[{"vendor":"x"}]}"#, Err("requirements.gpu[0].device_name"));
    let rootfs = |rootfs: &str| {
        let text = format!(
            r#"{{"address":"0xA","time":1,"allow_amend":false,"environment":{{}},"resources":{{}},"rootfs":{rootfs}}}"#
        );
        InstanceContent::parse(&text).map(|content| content.rootfs.size_mib).map_err(|error| error.field)
    };
    let parent = format!(r#""parent":{{"ref":"{HASH}"}}"#);
    assert_eq!(rootfs(&format!(r#"{{{parent},"persistence":"store","size_mib":1953125,"new":1}}"#)), Ok(1_953_125));
    assert_eq!(
        rootfs(&format!(r#"{{{parent},"persistence":"host","size_mib":1953126}}"#)),
        Err("rootfs.size_mib".into())
    );
    assert_eq!(rootfs(&format!(r#"{{{parent},"persistence":"host","size_mib":"5"}}"#)), Err("rootfs.size_mib".into()));
    assert_eq!(rootfs(&format!(r#"{{{parent},"size_mib":5}}"#)), Err("rootfs.persistence".into()));
    assert_eq!(rootfs(r#"{"persistence":"host","size_mib":5}"#), Err("rootfs.parent".into()));
}

#[test]
fn payment_node_and_devices_go_together() {
    let gpu = r#""gpu":[{"vendor":"n","device_name":"d","device_class":"0300","device_id":"10de:27b0"}]"#;
    let node = format!(r#""node":{{"node_hash":"{HASH}"}}"#);
    let terms = format!(r#""node":{{"terms_and_conditions":"{HASH}"}}"#);
    let pinned_terms = format!(r#""node":{{"node_hash":"{HASH}","terms_and_conditions":"{HASH}"}}"#);
    let requiring = |what: &str, payment: &str| format!(r#","requirements":{{{what}}}{payment}"#);
    let qemu = r#"{"hypervisor":"qemu"}"#;
    const NODE: &str = "requirements.node.node_hash";
    check("{}", STREAM, Ok(()));
    check("{}", &requiring("", STREAM), Err(NODE));
    check("{}", &requiring(&node, STREAM), Ok(()));
    check("{}", &requiring("", CREDIT), Ok(()));
    check(qemu, &requiring(gpu, CREDIT), Ok(()));
    check(qemu, &requiring(gpu, ""), Err(NODE));
    check(qemu, &requiring(&format!("{gpu},{node}"), ""), Ok(()));
    check("{}", &requiring(gpu, CREDIT), Err("environment.hypervisor"));
    check("{}", &requiring(r#""gpu":[]"#, ""), Ok(()));
    check("{}", &requiring(&terms, CREDIT), Err(NODE));
    check("{}", &requiring(&pinned_terms, CREDIT), Ok(()));
    check("{}", &requiring(&pinned_terms, STREAM), Ok(()));
    check("{}", &requiring(&pinned_terms, ""), Err("requirements.node.terms_and_conditions"));
    check(&trusted(r#""policy":1"#), &requiring(&pinned_terms, ""), Ok(()));
}

#[test]
fn trusted_execution_follows_its_mode() {
    const AT: &str = "environment.trusted_execution";
    let field = |name: &str| format!("{AT}.{name}");
    check(r#"{"trusted_execution":{}}"#, "", Ok(()));
    check(r#"{"trusted_execution":null}"#, "", Ok(()));
    check(r#"{"trusted_execution":{"policy":1}}"#, "", Err(AT));
    check(&trusted(&format!(r#""firmware":"{HASH}","policy":"7""#)), "", Ok(()));
    check(&trusted(r#""policy":-5"#), "", Ok(()));
    check(&trusted(r#""policy":1180591620717411303424"#), "", Ok(()));
    check(&trusted(r#""policy":1.5"#), "", Err(&field("policy")));
    check(&trusted(r#""mode":"sev","measurements":[]"#), "", Err(&field("measurements")));
    check(&trusted(r#""attestation_port":8443"#), "", Err(&field("attestation_port")));
    check(&trusted(r#""other":1"#), "", Err(&field("other")));
    let snp = |more: &str| measured("sev_snp", &launch(), more);
    check(&snp(r#","policy":196608"#), CREDIT, Ok(()));
    check(&snp(r#","policy":196608"#), "", Err("payment"));
    check(&snp(r#","policy":131072"#), CREDIT, Ok(()));
    check(&snp(r#","policy":9223372036854906880"#), CREDIT, Ok(()));
    check(&snp(r#","policy":18446744073709682688"#), CREDIT, Err(&field("policy")));
    check(&snp(""), CREDIT, Err(&field("policy")));
    check(&snp(&format!(r#","policy":196608,"firmware":"{HASH}""#)), CREDIT, Err(&field("firmware")));
    check(&measured("sev_snp", &tdx(), r#","policy":196608"#), CREDIT, Err(&field("measurements[0].registers.launch")));
    check(&measured("tdx", &tdx(), ""), CREDIT, Ok(()));
    check(&measured("tdx", &tdx(), r#","policy":1"#), CREDIT, Ok(()));
    check(&measured("tdx", &tdx(), r#","policy":196608"#), CREDIT, Err(&field("policy")));
    let cards = |count: &str, more: &str| {
        format!(r#","policy":196608,"gpu":{{"vendor":"nvidia","arch":"hopper","count":{count},"mode":"cc"{more}}}"#)
    };
    check(&snp(&cards("8", "")), CREDIT, Ok(()));
    check(&snp(&cards("9", "")), CREDIT, Err(&field("gpu.count")));
    check(&snp(&cards("\"1\"", "")), CREDIT, Err(&field("gpu.count")));
    check(&snp(&cards("1", r#","models":["10de:2b85","10de:2b86"]"#)), CREDIT, Ok(()));
    for models in [r#"["10de:2B85"]"#, r#"["10de:2b85","10de:2b85"]"#, "[]", r#"["2b85"]"#] {
        let environment = snp(&cards("1", &format!(r#","models":{models}"#)));
        let error = InstanceContent::parse(&instance(&environment, CREDIT)).expect_err("refused");
        assert!(error.field.starts_with(&field("gpu.models")), "{error}");
    }
    let devices = r#","requirements":{"gpu":[{"vendor":"n","device_name":"d","device_class":"0300","device_id":"x"}]}"#;
    check(&snp(&cards("1", "")), &format!("{devices}{CREDIT}"), Err("requirements.gpu"));
    let tdx_cards = measured("tdx", &tdx(), r#","gpu":{"vendor":"nvidia","arch":"hopper","count":1,"mode":"cc"}"#);
    check(&tdx_cards, CREDIT, Err(&field("gpu")));
}

/// The environment of a function is open: what only instances have does not count, and streamed payment needs no node.
#[test]
fn programs_are_not_held_to_the_rules_of_instances() {
    let program = |environment: &str, more: &str| {
        let text = format!(
            r#"{{"address":"0xA","time":1,"type":"vm-function","allow_amend":false,"environment":{environment},"resources":{{}},
                "code":{{"encoding":"zip","entrypoint":"m:a","ref":"{HASH}"}},"runtime":{{"ref":"{HASH}","comment":""}},
                "on":{{"http":true}}{more}}}"#
        );
        ProgramContent::parse(&text).map(|_| ())
    };
    assert_eq!(program(r#"{"hypervisor":"xen"}"#, ""), Ok(()));
    assert_eq!(program(r#"{"trusted_execution":{"policy":"x"}}"#, ""), Ok(()));
    assert_eq!(program("{}", &format!(r#","requirements":{{"node":{{}}}}{STREAM}"#)), Ok(()));
    assert!(program(r#"{"internet":2}"#, "").is_err());
}

proptest! {
    #[test]
    fn arbitrary_text_does_no_harm(environment in ".{0,100}", more in ".{0,200}") {
        let _ = InstanceContent::parse(&instance(&environment, &more));
        let _ = InstanceContent::parse(&instance(&trusted(&more), ""));
    }
}
