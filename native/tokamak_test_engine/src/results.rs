// SPDX-License-Identifier: Apache-2.0
//! Results of all kinds of types.

use rustler::{NifMap, NifStruct, NifTaggedEnum, NifTuple, NifUnitEnum};
use std::collections::HashMap;
use std::sync::OnceLock;
use tokamak::{Bytes, Path, Value};

#[derive(NifMap)]
struct Row {
    id: u64,
    name: String,
}

#[derive(NifStruct)]
#[module = "Point"]
struct Point {
    x: f64,
    y: f64,
}

#[derive(NifTuple)]
struct Pair {
    left: i8,
    right: bool,
}

#[derive(NifUnitEnum)]
enum Colour {
    Red,
}

#[derive(NifTaggedEnum)]
enum Shape {
    Circle(u32),
}

type Nested = (Row, Point, Pair, Colour, Shape);

/// Types that rustler derives.
#[tokamak::op(eager)]
async fn derived() -> Nested {
    (
        Row {
            id: 1,
            name: "one".to_owned(),
        },
        Point { x: 0.5, y: -0.5 },
        Pair {
            left: -1,
            right: true,
        },
        Colour::Red,
        Shape::Circle(3),
    )
}

type Collected = (Vec<u8>, Option<String>, Option<u8>, HashMap<String, i64>);

/// Types of the standard library.
#[tokamak::op]
async fn collected() -> Collected {
    let map = HashMap::from([("minus".to_owned(), i64::MIN)]);
    (vec![1, 2, 3], Some("text".to_owned()), None, map)
}

/// All that it was given, decoded and encoded again.
#[tokamak::op]
#[allow(clippy::too_many_arguments)]
async fn decoded(
    integer: i32,
    float: f64,
    text: String,
    list: Vec<u16>,
    option: Option<i8>,
    path: Path,
    value: Value,
    bytes: Bytes,
) -> (i32, f64, String, Vec<u16>, Option<i8>, Path, (Value, Bytes)) {
    (integer, float, text, list, option, path, (value, bytes))
}

/// How long the lists in a list are.
#[tokamak::op(eager)]
async fn lengths(lists: Vec<Vec<u8>>) -> Vec<usize> {
    lists.iter().map(Vec::len).collect()
}

/// How long the lists of a map are, by their names.
#[tokamak::op]
async fn lengths_by_name(lists: HashMap<String, Vec<u8>>) -> HashMap<String, usize> {
    let length = |(name, list): (String, Vec<u8>)| (name, list.len());
    lists.into_iter().map(length).collect()
}

/// Takes integers that rustler's decoders would cut off.
#[tokamak::op]
async fn small(byte: u8, list: Vec<i16>, option: Option<i8>) -> (u8, Vec<i16>, Option<i8>) {
    (byte, list, option)
}

/// Nothing, as one may also write it.
#[tokamak::op(eager)]
#[allow(clippy::unused_unit)]
async fn r#return() -> () {}

/// Nothing at all.
#[tokamak::op]
async fn nothing() {}

/// So many bytes, each a 7.
#[tokamak::op(eager)]
async fn bytes(size: usize) -> Bytes {
    vec![7; size].into()
}

/// The same 64 MiB each time.
#[tokamak::op(eager)]
async fn shared_bytes() -> Bytes {
    static SHARED: OnceLock<Bytes> = OnceLock::new();
    SHARED.get_or_init(|| vec![7; 64 << 20].into()).clone()
}

/// The same 64 MiB from the runtime.
#[tokamak::op]
async fn shared_bytes_in_runtime() -> Bytes {
    shared_bytes().await
}
