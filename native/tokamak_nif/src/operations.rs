// SPDX-License-Identifier: Apache-2.0
//! The built-in operations.

use rustler::{Decoder, NifResult, NifUnitEnum, Term};
use sha2::{Digest, Sha256, Sha512};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;
use tokamak::{Ctx, Path, Value};

/// How much of a file is hashed between two looks at whether anybody still wants it.
const CHUNK: usize = 256 * 1024;

/// Gives its argument back.
#[tokamak::op(eager)]
async fn echo(value: Value) -> Value {
    value
}

/// Waits so many milliseconds.
#[tokamak::op]
async fn sleep(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// The numbers from 1 to `last`, one every so many milliseconds; 0: as fast as credit allows.
#[tokamak::op(stream)]
fn count(last: u64, milliseconds: u64) -> impl futures_core::Stream<Item = u64> {
    let interval = Duration::from_millis(milliseconds);
    futures_util::stream::unfold(1, move |next| async move {
        if next > last {
            return None;
        }
        if !interval.is_zero() {
            tokio::time::sleep(interval).await;
        }
        Some((next, next + 1))
    })
}

/// The digests that `hash_file` knows.
#[derive(Clone, Copy, NifUnitEnum)]
enum Algorithm {
    Sha256,
    Sha512,
    Blake3,
}

/// What to hash, and how: `[Path, Algorithm]`, in either order.
enum HashArgument {
    Path(PathBuf),
    Algorithm(Algorithm),
}

impl<'a> Decoder<'a> for HashArgument {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        match term.decode() {
            Ok(algorithm) => Ok(Self::Algorithm(algorithm)),
            Err(_) => Ok(Self::Path(term.decode::<Path>()?.0)),
        }
    }
}

/// The digest of a file in hexadecimal.
#[tokamak::op(blocking)]
fn hash_file(ctx: Ctx, path: HashArgument, algorithm: HashArgument) -> io::Result<String> {
    match (path, algorithm) {
        (HashArgument::Path(path), HashArgument::Algorithm(algorithm))
        | (HashArgument::Algorithm(algorithm), HashArgument::Path(path)) => {
            hash(&ctx, File::open(path)?, algorithm)
        }
        _ => Err(io::Error::from_raw_os_error(
            rustix::io::Errno::INVAL.raw_os_error(),
        )),
    }
}

fn hash(ctx: &Ctx, file: File, algorithm: Algorithm) -> io::Result<String> {
    match algorithm {
        Algorithm::Sha256 => {
            let mut digest = Sha256::new();
            each_chunk(ctx, file, |chunk| digest.update(chunk))?;
            Ok(hexadecimal(&digest.finalize()))
        }
        Algorithm::Sha512 => {
            let mut digest = Sha512::new();
            each_chunk(ctx, file, |chunk| digest.update(chunk))?;
            Ok(hexadecimal(&digest.finalize()))
        }
        Algorithm::Blake3 => {
            let mut digest = blake3::Hasher::new();
            each_chunk(ctx, file, |chunk| {
                digest.update(chunk);
            })?;
            Ok(digest.finalize().to_hex().to_string())
        }
    }
}

fn each_chunk(ctx: &Ctx, mut file: File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while !ctx.is_cancelled() {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::Interrupted.into())
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The names in a directory, sorted, as binaries of their bytes.
#[tokamak::op(blocking)]
fn list_dir(path: Path) -> io::Result<Vec<Path>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path.0)? {
        names.push(PathBuf::from(entry?.file_name()));
    }
    names.sort();
    Ok(names.into_iter().map(Path).collect())
}

/// The addresses of a host name, as text.
#[tokamak::op]
async fn resolve_host(host: String) -> io::Result<Vec<String>> {
    let addresses = tokio::net::lookup_host((host, 0)).await?;
    let mut texts: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
    texts.dedup();
    Ok(texts)
}
