// SPDX-License-Identifier: Apache-2.0
//! `tokamak_bench_report RESULTS DIRECTORY` reads the JSON that `make bench` wrote and writes `index.html`
//! and `table.md` into a directory.
//!
//! Exit status: 0, 1 where the results could not be reported, 2 for wrong arguments.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [results, directory] = arguments.as_slice() else {
        eprintln!("usage: tokamak_bench_report RESULTS DIRECTORY");
        return ExitCode::from(2);
    };
    match tokamak_bench_report::write_report(Path::new(results), Path::new(directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokamak_bench_report: {error}");
            ExitCode::FAILURE
        }
    }
}
