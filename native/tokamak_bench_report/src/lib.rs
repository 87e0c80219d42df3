// SPDX-License-Identifier: Apache-2.0
//! Reports what the benches measured: a page with plots of every number, and a table in Markdown to quote.
//!
//! [`results`] is what `make bench` wrote, [`figures`] turns it into plots, [`plot`] draws them, and
//! [`page`] fills the templates.

pub mod axis;
pub mod figures;
pub mod page;
pub mod plot;
pub mod quantity;
pub mod results;

use std::path::{Path, PathBuf};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The results could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file with the results.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The results are not what the benches of this version write.
    #[error("{} has no results of the benches: {source}", path.display())]
    Parse {
        /// The file with the results.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A row that is a latency has no distribution.
    #[error("{}: {row:?} is a latency without its distribution", path.display())]
    NoDistribution {
        /// The file with the results.
        path: PathBuf,
        /// The row.
        row: String,
    },
    /// The results could be read, but nothing was measured.
    #[error("{} has no rows", path.display())]
    Empty {
        /// The file with the results.
        path: PathBuf,
    },
    /// A plot could not be drawn.
    #[error("cannot draw {title:?}: {reason}")]
    Draw {
        /// The plot.
        title: String,
        /// What the plotting library says.
        reason: String,
    },
    /// A template could not be filled.
    #[error("cannot fill the template: {0}")]
    Fill(#[from] askama::Error),
    /// The report could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Reads results and writes `index.html` and `table.md` into a directory, which is made if necessary.
///
/// # Errors
///
/// What could not be read, understood, drawn or written.
pub fn write_report(results: &Path, directory: &Path) -> Result<(), Error> {
    let results = results::read(results)?;
    let page = page::html(&results)?;
    let table = page::markdown(&results)?;
    std::fs::create_dir_all(directory).map_err(|source| Error::Write {
        path: directory.to_owned(),
        source,
    })?;
    write(directory.join("index.html"), &page)?;
    write(directory.join("table.md"), &table)
}

fn write(path: PathBuf, text: &str) -> Result<(), Error> {
    std::fs::write(&path, text).map_err(|source| Error::Write { path, source })
}
