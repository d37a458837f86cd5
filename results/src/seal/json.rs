//! JSON that carries a digest of itself.
//!
//! The last entry of the object is `blake3`: the BLAKE3 digest of every byte before that entry. A file that was
//! truncated, damaged or edited is recognised without a second file that lists digests.

use serde::Serialize;
use serde::de::DeserializeOwned;

const SEAL: &str = ",\n  \"blake3\": \"";
const SEAL_END: &str = "\"\n}\n";
const HEX: usize = 64;

/// An object as indented JSON, sealed.
pub fn to_text(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    let body = text.strip_suffix("\n}").ok_or_else(|| {
        let what = "only an object with entries can be sealed";
        <serde_json::Error as serde::ser::Error>::custom(what)
    })?;
    Ok(seal(body))
}

/// An object's text without its last brace, sealed.
pub fn seal(body: &str) -> String {
    let digest = blake3::hash(body.as_bytes()).to_hex();
    format!("{body}{SEAL}{digest}{SEAL_END}")
}

/// The text before the seal, without the object's last brace, if the seal holds.
pub fn unseal(text: &str) -> Option<&str> {
    let sealed = text.strip_suffix(SEAL_END)?;
    let (rest, digest) = sealed.split_at_checked(sealed.len().checked_sub(HEX)?)?;
    let body = rest.strip_suffix(SEAL)?;
    (blake3::hash(body.as_bytes()).to_hex().as_str() == digest).then_some(body)
}

/// The object in a sealed text; `None` if the seal does not hold.
pub fn from_text<T: DeserializeOwned>(text: &str) -> Option<serde_json::Result<T>> {
    unseal(text).map(|body| serde_json::from_str(&format!("{body}\n}}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Words = BTreeMap<String, String>;

    #[test]
    fn every_bit_and_every_cut_is_noticed() {
        let value: Words = [("a", "x"), ("blake3", "y")].map(|(a, b)| (a.into(), b.into())).into();
        let good = to_text(&value).unwrap();
        assert_eq!(from_text::<Words>(&good).unwrap().unwrap(), value);
        for place in 0..good.len() {
            assert!(unseal(&good[..place]).is_none(), "cut at {place}");
            for bit in 0..8 {
                let mut bytes = good.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let noticed = String::from_utf8(bytes).map_or(true, |text| unseal(&text).is_none());
                assert!(noticed, "byte {place}, bit {bit}");
            }
        }
    }

    #[test]
    fn what_is_no_object_cannot_be_sealed() {
        assert!(to_text(&[1, 2]).is_err());
        assert!(to_text(&Words::new()).is_err());
    }
}
