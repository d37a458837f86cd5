//! Records of comma-separated values, as text.

/// Records that all have as many fields as the first.
pub(crate) struct Records(::csv::Writer<Vec<u8>>);

impl Records {
    /// The names of the fields.
    pub(crate) fn new<T: AsRef<[u8]>>(head: impl IntoIterator<Item = T>) -> Self {
        let mut records = Self(::csv::Writer::from_writer(Vec::new()));
        records.add(head);
        records
    }

    /// One record. Fields with commas, quotes or line breaks are quoted.
    pub(crate) fn add<T: AsRef<[u8]>>(&mut self, fields: impl IntoIterator<Item = T>) {
        self.0
            .write_record(fields)
            .expect("a record has as many fields as the head");
    }

    /// All records, one per line.
    pub(crate) fn finish(self) -> String {
        let bytes = self.0.into_inner().expect("memory takes every byte");
        String::from_utf8(bytes).expect("text stays text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_quotes_has_them() {
        let mut records = Records::new(["a", "b c", ""]);
        records.add(["a,\"b\"\nc", "x\ry", "ü#"]);
        assert_eq!(records.finish(), "a,b c,\n\"a,\"\"b\"\"\nc\",\"x\ry\",ü#\n");
    }
}
