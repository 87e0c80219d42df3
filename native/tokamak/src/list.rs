// SPDX-License-Identifier: Apache-2.0
//! Lists out of terms that nobody has checked: rustler's decoder of vectors panics at the end of an
//! improper list.

use rustler::{Decoder, NifResult, Term};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The items of a proper list.
pub struct List<T>(pub Vec<T>);

impl<'a, T: Decoder<'a>> Decoder<'a> for List<T> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        // An improper list has no length.
        let mut items = Vec::with_capacity(term.list_length()?);
        for item in term.into_list_iterator()? {
            items.push(item.decode()?);
        }
        Ok(Self(items))
    }
}

/// The first items of a list, up to `max`; `None`: one of them is of another type, or the list is improper
/// before that.
pub fn first<'a, T: Decoder<'a>>(list: Term<'a>, max: usize) -> Option<Vec<T>> {
    let (mut rest, mut items) = (list, Vec::new());
    while items.len() < max
        && let Ok((head, tail)) = rest.list_get_cell()
    {
        items.push(head.decode().ok()?);
        rest = tail;
    }
    (items.len() == max || rest.is_empty_list()).then_some(items)
}

/// What rustler says of an improper list.
const IMPROPER: &str = "improper list";

/// Decodes a value of any type, with lists anywhere in it. Panics of the type's own decoder go on.
pub(crate) fn decode_within<'a, T: Decoder<'a>>(term: Term<'a>) -> NifResult<T> {
    catch_unwind(AssertUnwindSafe(|| term.decode())).unwrap_or_else(|panic| {
        match tokamak_core::panic::text(&*panic).contains(IMPROPER) {
            true => Err(rustler::Error::BadArg),
            false => resume_unwind(panic),
        }
    })
}
