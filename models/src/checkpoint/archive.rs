//! The zip files of `torch.save`: `NAME/data.pkl` and one stored file per storage, `NAME/data/KEY`.
//!
//! Only what PyTorch writes is read: entries that are stored, not compressed; zip64 where sizes need it.
//! The sum of every entry is checked, also of those that are not needed, so that any flipped byte of any
//! content is detected. Entries may not overlap, so together they are no larger than the file.

use std::collections::BTreeMap;

use super::dictionary::Pickled;
use super::pickle;

type Result<T> = std::result::Result<T, String>;

/// What a zip file holds, by name.
pub(super) type Entries<'a> = BTreeMap<String, &'a [u8]>;

/// The pickle and the storages of a file.
pub(super) fn load<'a>(entries: &Entries<'a>) -> Result<Pickled<'a>> {
    let mut pickles = entries.keys().filter_map(|name| name.strip_suffix("data.pkl"));
    let folder = match (pickles.next(), pickles.next()) {
        (Some(folder), None) if folder.is_empty() || (folder.ends_with('/') && folder.matches('/').count() == 1) => {
            folder
        }
        (Some(_), Some(_)) => return Err("the zip file holds several pickles `data.pkl`".into()),
        _ => return Err("the zip file holds no `NAME/data.pkl`, so `torch.save` did not write it".into()),
    };
    if let Some(order) = entries.get(&format!("{folder}byteorder"))
        && *order != b"little"
    {
        let order = String::from_utf8_lossy(order);
        return Err(format!(
            "its byte order is `{order}`, not `little`; save it again on an ordinary machine"
        ));
    }
    let (pickle, rest) = pickle::parse(entries[format!("{folder}data.pkl").as_str()])?;
    if !rest.is_empty() {
        return Err("`data.pkl` goes on after its end".into());
    }
    let data = format!("{folder}data/");
    let storages = entries
        .iter()
        .filter_map(|(name, content)| Some((name.strip_prefix(&data)?.to_string(), *content)));
    Ok(Pickled {
        storages: storages.collect(),
        pickle,
    })
}

const TORCHSCRIPT: &str = "this is TorchScript, a program with its parameters; save the parameters alone: \
    `torch.save(torch.jit.load(\"theirs.pt\").state_dict(), \"weights.pt\")`, or `model.state_dict()` before it is scripted";

const BROKEN: &str = "the zip file is truncated or damaged";

fn broken(what: &str) -> String {
    format!("{BROKEN}: {what}; copy it again")
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(wide))
}

/// A part of a file whose bounds come from the file.
fn part(bytes: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

/// Every entry's content by name.
pub(super) fn entries(bytes: &[u8]) -> Result<Entries<'_>> {
    let (count, size, start) = directory(bytes).ok_or_else(|| broken("its directory is not there"))?;
    let directory = part(bytes, start, size).ok_or_else(|| broken("its directory is outside the file"))?;
    let mut entries = BTreeMap::new();
    let mut spans = Vec::new();
    let mut at = 0;
    while at < directory.len() {
        let (entry, length) = entry(directory, at).ok_or_else(|| broken("an entry of its directory is cut short"))?;
        at += length;
        let Entry {
            name, method, flags, ..
        } = &entry;
        // Before the rest: TorchScript packs its code.
        if name.ends_with("/constants.pkl") || name.contains("/code/__torch__") {
            return Err(TORCHSCRIPT.into());
        }
        if *method != 0 {
            return Err(format!(
                "`{name}` is compressed, which `torch.save` and `numpy.savez` never do; unpack it and pack it without \
                 compression"
            ));
        }
        if flags & 1 != 0 {
            return Err(format!("`{name}` is encrypted"));
        }
        let (content, span) = content(bytes, &entry).ok_or_else(|| broken(&format!("`{name}` is not complete")))?;
        if crc32fast::hash(content) != entry.sum {
            return Err(broken(&format!("the bytes of `{name}` do not give its check sum")));
        }
        spans.push((span, name.clone()));
        if entries.insert(name.clone(), content).is_some() {
            return Err(format!("the zip file holds `{name}` twice"));
        }
    }
    if entries.len() as u64 != count {
        return Err(broken(&format!(
            "it holds {} entries instead of {count}",
            entries.len()
        )));
    }
    spans.sort();
    if let Some(pair) = spans.windows(2).find(|pair| pair[0].0.1 > pair[1].0.0) {
        return Err(format!("`{}` and `{}` overlap in the zip file", pair[0].1, pair[1].1));
    }
    Ok(entries)
}

/// How many entries the directory has, its size and its start.
fn directory(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    const END: usize = 22;
    // A comment of up to 65535 bytes may follow the end record.
    let last = bytes.len().checked_sub(END)?;
    let fits =
        |at: &usize| bytes[*at..].starts_with(b"PK\x05\x06") && number::<2>(bytes, at + 20) == Some((last - at) as u64);
    let end = (last.saturating_sub(0xffff)..=last).rev().find(fits)?;
    let locator = end.checked_sub(20).filter(|at| bytes[*at..].starts_with(b"PK\x06\x07"));
    let Some(locator) = locator else {
        return Some((
            number::<2>(bytes, end + 10)?,
            number::<4>(bytes, end + 12)?,
            number::<4>(bytes, end + 16)?,
        ));
    };
    let wide = usize::try_from(number::<8>(bytes, locator + 8)?).ok()?;
    if !bytes.get(wide..)?.starts_with(b"PK\x06\x06") {
        return None;
    }
    Some((
        number::<8>(bytes, wide.checked_add(32)?)?,
        number::<8>(bytes, wide.checked_add(40)?)?,
        number::<8>(bytes, wide.checked_add(48)?)?,
    ))
}

struct Entry {
    name: String,
    method: u64,
    flags: u64,
    sum: u32,
    size: u64,
    packed: u64,
    header: u64,
}

/// The entry at a place of the directory, and how long its record is.
fn entry(directory: &[u8], at: usize) -> Option<(Entry, usize)> {
    let record = directory.get(at..)?;
    if !record.starts_with(b"PK\x01\x02") {
        return None;
    }
    let lengths = [28, 30, 32].map(|place| number::<2>(record, place).map(|length| length as usize));
    let [name, extra, comment] = [lengths[0]?, lengths[1]?, lengths[2]?];
    let name_bytes = record.get(46..46 + name)?;
    let mut extra_bytes = record.get(46 + name..46 + name + extra)?;
    let mut sizes = [
        number::<4>(record, 24)?,
        number::<4>(record, 20)?,
        number::<4>(record, 42)?,
    ];
    while extra_bytes.len() >= 4 {
        let (id, length) = (number::<2>(extra_bytes, 0)?, number::<2>(extra_bytes, 2)? as usize);
        let field = extra_bytes.get(4..4 + length)?;
        // zip64: those of the three that do not fit 32 bits, in this order.
        if id == 1 {
            let mut place = 0;
            for size in sizes.iter_mut().filter(|size| **size == 0xffff_ffff) {
                *size = number::<8>(field, place)?;
                place += 8;
            }
        }
        extra_bytes = &extra_bytes[4 + length..];
    }
    let entry = Entry {
        name: std::str::from_utf8(name_bytes).ok()?.to_string(),
        method: number::<2>(record, 10)?,
        flags: number::<2>(record, 8)?,
        sum: number::<4>(record, 16)? as u32,
        size: sizes[0],
        packed: sizes[1],
        header: sizes[2],
    };
    Some((entry, 46 + name + extra + comment))
}

/// An entry's content, and where its local header begins and its content ends.
fn content<'a>(bytes: &'a [u8], entry: &Entry) -> Option<(&'a [u8], (u64, u64))> {
    let header = part(bytes, entry.header, 30)?;
    if !header.starts_with(b"PK\x03\x04") || entry.size != entry.packed {
        return None;
    }
    let (name, extra) = (number::<2>(header, 26)?, number::<2>(header, 28)?);
    if part(bytes, entry.header + 30, name)? != entry.name.as_bytes() {
        return None;
    }
    let start = entry.header + 30 + name + extra;
    let content = part(bytes, start, entry.size)?;
    Some((content, (entry.header, start + entry.size)))
}
