// SPDX-License-Identifier: Apache-2.0
//! Primitive values to and from bytes. Reading trusts nothing: no length is believed before the bytes
//! are there.

/// The bytes are not a message of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub(crate) &'static str);

/// Takes values from the front of a message.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(Malformed("too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(Malformed("too short"))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("neither true nor false")),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        let length = self.u32()?;
        self.take(length as usize).map(<[u8]>::to_vec)
    }

    pub(crate) fn optional_bytes(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        if self.bool()? {
            self.bytes().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Reads a count and then that many items. Every item has at least one byte, so a count beyond
    /// the rest of the message reserves no memory.
    pub(crate) fn list<T>(
        &mut self,
        item: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.u32()? as usize;
        if count > self.rest.len() {
            return Err(Malformed("a list longer than its message"));
        }
        (0..count).map(|_| item(self)).collect()
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed("too long"))
        }
    }
}

/// Appends values to a message.
pub(crate) trait Writer {
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_i32(&mut self, value: i32);
    fn put_bool(&mut self, value: bool);
    fn put_bytes(&mut self, value: &[u8]);
    fn put_optional_bytes(&mut self, value: Option<&[u8]>);
    fn put_list(&mut self, values: &[Vec<u8>]);
}

impl Writer for Vec<u8> {
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_bool(&mut self, value: bool) {
        self.push(u8::from(value));
    }

    /// A value of 4 GiB or more gets a length that does not fit; such a message is beyond
    /// `MAX_REQUEST` and is refused before it is sent.
    fn put_bytes(&mut self, value: &[u8]) {
        self.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.extend_from_slice(value);
    }

    fn put_optional_bytes(&mut self, value: Option<&[u8]>) {
        self.put_bool(value.is_some());
        if let Some(value) = value {
            self.put_bytes(value);
        }
    }

    fn put_list(&mut self, values: &[Vec<u8>]) {
        self.put_u32(values.len() as u32);
        values.iter().for_each(|value| self.put_bytes(value));
    }
}
