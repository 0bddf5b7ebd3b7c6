use super::*;
use plugin_sdk::{
    MemoryView, Version,
    message::{Amount, ItemHash, content::program::ProgramContent},
    simulation::message,
};

/// A content with resources and features that a case is about.
fn content(resources: &str, more: &str) -> ProgramContent {
    let [code, runtime] = ["code", "runtime"].map(|name| ItemHash::sha256_of(name.as_bytes()));
    let text = format!(
        r#"{{"address":"0xA","time":1,"type":"vm-function","allow_amend":false,"resources":{{{resources}}},
            "code":{{"encoding":"zip","entrypoint":"main:app","ref":"{code}"}},"runtime":{{"ref":"{runtime}","comment":""}}{more}}}"#
    );
    ProgramContent::parse(&text).expect("a PROGRAM")
}

/// A view in which code and runtime have these sizes, bytes.
fn view(code: u64, runtime: u64) -> MemoryView {
    let mut view = MemoryView::new("program");
    for (name, size) in [("code", code), ("runtime", runtime), ("volume", 2 << 20)] {
        let hash = ItemHash::sha256_of(name.as_bytes()).to_string();
        view.add_version(Version { item_hash: &hash, file: &hash, size, time: 0.5, updates: None });
    }
    view
}

/// The rows of a program's estimate.
fn lines(content: &ProgramContent, view: &MemoryView) -> Vec<CostLine> {
    let parts = Parts::of_program(content);
    let at = message("PROGRAM", r#"{"address":"0xA","time":1}"#).expect("a message");
    super::lines(&parts, &Files::find(&parts.references(), &at, view), true, view)
}

const ON_DEMAND: &str = r#","on":{"http":true},"environment":{}"#;
const ON_DEMAND_INTERNET: &str = r#","on":{"http":true},"environment":{"internet":true}"#;
const PERSISTENT: &str = r#","on":{"http":true,"persistent":true},"environment":{"internet":true}"#;
const CREDIT: &str = r#","payment":{"type":"credit"}"#;

type Row<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, Option<&'a str>);

fn row(line: &CostLine) -> Row<'_> {
    (&line.kind, &line.name, &line.hold, &line.stream, &line.credit, line.size_mib.as_deref())
}

#[test]
fn execution_is_charged_by_compute_unit() {
    let check = |resources: &str, more: &str, hold: &str, stream: &str, credit: &str| {
        let lines = lines(&content(resources, more), &view(0, 0));
        let line = &lines[0];
        assert_eq!(line.kind, "EXECUTION");
        assert_eq!(
            (line.hold.as_str(), line.stream.as_str(), line.credit.as_str()),
            (hold, stream, credit),
            "{resources}{more}"
        );
    };
    // The vector of ccn spec 6.3.
    check(r#""vcpus":2"#, ON_DEMAND_INTERNET, "800", "0.000012222222222222", "12.222222222222222222");
    check(r#""vcpus":2"#, ON_DEMAND, "400", "0.000006111111111111", "6.111111111111111111");
    check("", ON_DEMAND, "200", "0.000003055555555555", "3.055555555555555555");
    check(r#""memory":2048"#, ON_DEMAND, "200", "0.000003055555555555", "3.055555555555555555");
    check(r#""memory":2049"#, ON_DEMAND, "400", "0.000006111111111111", "6.111111111111111111");
    check(r#""memory":4096,"vcpus":3"#, PERSISTENT, "3000", "0.000045833333333333", "45.833333333333333333");
}

#[test]
fn volumes_are_charged_up_to_what_comes_with_the_units() {
    let volume = ItemHash::sha256_of(b"volume");
    let more = format!(
        r#"{ON_DEMAND}{CREDIT},"volumes":[{{"ref":"{volume}","mount":"/lib"}},{{"ephemeral":true,"size_mib":100}},
            {{"size_mib":4096,"mount":"/data","name":"d"}}]"#
    );
    let lines = lines(&content("", &more), &view(1 << 19, 512 << 20));
    let expected: [Row<'_>; 7] = [
        ("EXECUTION", "program", "200", "0.000003055555555555", "3.055555555555555555", None),
        // Half a MiB by credit is less than the least that is charged.
        (
            "EXECUTION_PROGRAM_VOLUME_CODE",
            "EXECUTION_PROGRAM_VOLUME_CODE",
            "0.025",
            "0.000000000135694444",
            "0.000277777777777777",
            Some("0.5"),
        ),
        (
            "EXECUTION_PROGRAM_VOLUME_RUNTIME",
            "EXECUTION_PROGRAM_VOLUME_RUNTIME",
            "25.6",
            "0.000000138951111111",
            "0.138951111111111111",
            Some("512"),
        ),
        ("EXECUTION_VOLUME_INMUTABLE", "#0:/lib", "0.1", "0.000000000542777777", "0.000542777777777777", Some("2")),
        (
            "EXECUTION_VOLUME_PERSISTENT",
            "#1:EXECUTION_VOLUME_PERSISTENT",
            "5",
            "0.000000027138888888",
            "0.027138888888888888",
            Some("100"),
        ),
        (
            "EXECUTION_VOLUME_PERSISTENT",
            "#2:/data",
            "204.8",
            "0.000001111608888888",
            "1.111608888888888888",
            Some("4096"),
        ),
        (
            "EXECUTION_VOLUME_DISCOUNT",
            "EXECUTION_VOLUME_DISCOUNT",
            "-102.4",
            "-0.000000555804444445",
            "-0.555804444444444445",
            None,
        ),
    ];
    assert_eq!(lines.iter().map(row).collect::<Vec<_>>(), expected);
}

/// A discount is never more than the rows themselves, which were rounded before they were added up: nothing is left over.
#[test]
fn small_volumes_cost_nothing() {
    let lines = lines(&content("", ON_DEMAND), &view(1_000_003, 7));
    let amounts = |line: &CostLine| {
        [&line.hold, &line.stream, &line.credit].map(|text| text.parse::<Amount>().expect("an amount"))
    };
    let sums = lines[1..]
        .iter()
        .map(amounts)
        .fold([Amount::ZERO; 3], |sums, amounts| std::array::from_fn(|currency| sums[currency] + amounts[currency]));
    assert_eq!(sums, [Amount::ZERO; 3]);
}

#[test]
fn estimates_count_what_is_known() {
    let absent = ItemHash::sha256_of(b"absent");
    let more = format!(
        r#"{ON_DEMAND},"data":{{"encoding":"zip","mount":"/d","ref":"{absent}","estimated_size_mib":"7"}},
            "volumes":[{{"ref":"{absent}"}},{{"ref":"{absent}","estimated_size_mib":3}}]"#
    );
    let lines = lines(&content("", &more), &view(1 << 20, 1 << 20));
    let sizes: Vec<(&str, Option<&str>)> =
        lines.iter().map(|line| (line.name.as_str(), line.size_mib.as_deref())).collect();
    assert_eq!(
        sizes,
        [
            ("program", None),
            ("EXECUTION_PROGRAM_VOLUME_CODE", Some("1")),
            ("EXECUTION_PROGRAM_VOLUME_RUNTIME", Some("1")),
            ("EXECUTION_PROGRAM_VOLUME_DATA", Some("7")),
            ("#1:EXECUTION_VOLUME_INMUTABLE", Some("3")),
            ("EXECUTION_VOLUME_DISCOUNT", None),
        ]
    );
}
