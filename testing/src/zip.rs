//! Zip files, entry by entry, so that tests can write what no tool would.

/// A zip file of stored entries, as `torch.save` and `numpy.savez` write it.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let name = name.as_bytes();
        let start = file.len() as u32;
        let length = (content.len() as u32).to_le_bytes();
        // Version, flags, method, time and date, then sum and sizes.
        let mut fields = vec![0, 0, 8, 8, 0, 0, 0, 0, 0, 0];
        fields.extend(crc32fast::hash(content).to_le_bytes());
        fields.extend([length, length].concat());
        fields.extend((name.len() as u16).to_le_bytes());
        file.extend([b"PK\x03\x04", &fields[..], &[0; 2], name, content].concat());
        directory.extend([b"PK\x01\x02\0\0", &fields[..], &[0; 12], &start.to_le_bytes(), name].concat());
    }
    let (start, size) = (file.len() as u32, directory.len() as u32);
    let count = (entries.len() as u16).to_le_bytes();
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count, count].concat());
    file.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
    file.extend([0; 2]);
    file
}
