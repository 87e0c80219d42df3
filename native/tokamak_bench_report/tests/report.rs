// SPDX-License-Identifier: Apache-2.0
//! From results to the files of the report, as `make bench` runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const RESULTS: &str = include_str!("results.json");

/// A directory of a test's own.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).expect("an old directory");
    }
    std::fs::create_dir_all(&path).expect("a new directory");
    path
}

fn run(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tokamak_bench_report"))
        .args(arguments)
        .output()
        .expect("the program runs")
}

/// Runs the program on results; the directory of the report, and what the program said.
fn report_of(name: &str, results: &str) -> (PathBuf, Output) {
    let directory = directory(name);
    let file = directory.join("results.json");
    std::fs::write(&file, results).expect("the results");
    let report = directory.join("report");
    let output = run(&[&file, &report]);
    (report, output)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file of the report")
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_page_has_every_row_and_every_plot() {
    let (report, output) = report_of("page", RESULTS);
    assert!(output.status.success(), "{}", complaint(&output));
    let page = read(&report.join("index.html"));
    let results: serde_json::Value = serde_json::from_str(RESULTS).expect("the fixture");
    for row in results["rows"].as_array().expect("rows") {
        let name = row["name"].as_str().expect("a name");
        let escaped = name.replace('&', "&#38;").replace('<', "&#60;");
        assert!(page.contains(&format!("<td>{escaped}</td>")), "{name}");
    }
    for title in [
        "Events: events per second by producers",
        "Waiting calls: calls per second by callers",
        "Waiting calls: latency of one call by callers",
        "Distribution: waiting call, 10 callers",
        "Distribution: waiting call, 100 callers",
        "Processor time per timer",
        "Time per call",
        "Memory: 1024 MiB through cat",
    ] {
        assert!(
            page.contains(&format!("<figcaption>{title}</figcaption>")),
            "{title}"
        );
    }
    assert_eq!(
        page.matches("<svg ").count(),
        page.matches("<figure").count()
    );
    assert_eq!(page.matches("Ratio to the baseline").count(), 5);
}

#[test]
fn the_page_works_offline() {
    let (report, _) = report_of("offline", RESULTS);
    let page = read(&report.join("index.html"));
    for outside in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let addresses = page.matches("http").count();
    assert_eq!(
        addresses,
        page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count()
    );
}

#[test]
fn the_table_has_the_rows_with_a_mark_the_machine_and_the_command() {
    let (report, _) = report_of("table", RESULTS);
    let table = read(&report.join("table.md"));
    assert!(table.starts_with("Example Processor, 2 processors, unix/linux 6.1.0, Erlang/OTP 25"));
    assert!(table.contains("`make bench BENCH=\"events --runs 3\"`, 3 run(s)"));
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .collect();
    assert_eq!(
        rows,
        [
            "| bench | what | baseline | result | its result | ratio: least | median | most | must | aim | verdict |",
            "| events | 1 producer, raw loop | one message each | 20.0 M/s | 1.10 M/s | 17.50 | **18.20** | 19.00 | 8× | 15× | aim |",
            "| events | 4 producers, raw loop | one message each | 12.0 M/s | 2.00 M/s | 5.50 | **6.00** | 6.50 | 8× | 15× | missed |",
            "| calls | waiting call | hand-written call | 15.0 µs | 15.5 µs | 0.95 | **1.03** | 1.10 | 1× | 1.3× | must |",
            "| pool | index of files | find \\| xargs | 21.0 k/s | 11.5 k/s | 1.70 | **1.80** | 1.90 | 1× |  | must |",
            "| subprocess | bytes through cat | port | 1.50 GiB/s | 768 MiB/s | 1.90 | **2.00** | 2.10 | 1.5× | 2× | aim |",
        ]
    );
}

#[test]
fn a_busy_machine_and_a_quick_run_are_said_to_be_so() {
    let notes = ["The machine was busy", "A quick run"];
    let (report, _) = report_of("quiet", RESULTS);
    let page = read(&report.join("index.html"));
    assert!(notes.iter().all(|note| !page.contains(note)));

    let busy = RESULTS
        .replace("\"load\": 0.12", "\"load\": 3.5")
        .replace("\"scale\": 1.0", "\"scale\": 0.1");
    let (report, _) = report_of("busy", &busy);
    let page = read(&report.join("index.html"));
    assert!(notes.iter().all(|note| page.contains(note)));
}

#[test]
fn results_that_cannot_be_read_are_named() {
    let directory = directory("absent");
    let output = run(&[&directory.join("absent.json"), &directory]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = complaint(&output);
    assert!(complaint.contains("cannot read"), "{complaint}");
    assert!(complaint.contains("absent.json"), "{complaint}");
}

#[test]
fn what_is_no_result_of_the_benches_is_refused_with_its_place() {
    let half = &RESULTS[..RESULTS.len() / 2];
    let lacking = RESULTS.replace("\"ratios\":", "\"rations\":");
    for (name, bad, why) in [
        ("no-json", "plain text", "line 1 column 1"),
        ("half", half, "EOF"),
        ("lacking", &lacking, "missing field `ratios`"),
    ] {
        let (report, output) = report_of(name, bad);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let complaint = complaint(&output);
        assert!(
            complaint.contains("has no results of the benches"),
            "{complaint}"
        );
        assert!(complaint.contains(why), "{complaint}");
        assert!(!report.exists(), "{name}: nothing is written");
    }
}

#[test]
fn latencies_without_their_distribution_are_refused() {
    let (_, output) = report_of(
        "latency",
        &RESULTS.replace("\"distribution\"", "\"dispersion\""),
    );
    assert_eq!(output.status.code(), Some(1));
    let complaint = complaint(&output);
    assert!(
        complaint.contains("waiting call, 10 callers"),
        "{complaint}"
    );
}

#[test]
fn no_rows_are_no_report() {
    let mut results: serde_json::Value = serde_json::from_str(RESULTS).expect("the fixture");
    results["rows"] = serde_json::json!([]);
    results["memory"] = serde_json::json!([]);
    let (_, output) = report_of("empty", &results.to_string());
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains("has no rows"));
}

#[test]
fn wrong_arguments_get_the_usage() {
    for arguments in [&[][..], &[Path::new("one")]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(complaint(&output).starts_with("usage:"));
    }
}
