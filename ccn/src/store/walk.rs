//! Rows of a range, one after the other, read a page at a time.

use super::{Reader, StoreError, reader::Row, schema::Table};

/// The rows that are left of a range.
pub struct Walk<'a> {
    reader: &'a dyn Reader,
    table: Table,
    start: Vec<u8>,
    end: Vec<u8>,
    reverse: bool,
    /// Rows that are read at a time.
    page: usize,
    rows: std::vec::IntoIter<Row>,
    /// True when nothing follows the rows that were read.
    is_last: bool,
}

impl<'a> Walk<'a> {
    /// Over rows with `start <= key < end`, last ones first when `reverse`, which are read so many at a time.
    pub fn new(
        reader: &'a dyn Reader,
        table: Table,
        (start, end): (Vec<u8>, Vec<u8>),
        reverse: bool,
        page: usize,
    ) -> Self {
        Self { reader, table, start, end, reverse, page, rows: Vec::new().into_iter(), is_last: false }
    }

    fn read(&mut self) -> Result<(), StoreError> {
        let rows = self.reader.range(self.table, &self.start, &self.end, self.page, self.reverse)?;
        self.is_last = rows.len() < self.page;
        match rows.last() {
            Some((last, _)) if self.reverse => self.end.clone_from(last),
            Some((last, _)) => self.start = [last.as_slice(), &[0]].concat(),
            None => {}
        }
        self.rows = rows.into_iter();
        Ok(())
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rows.len() == 0 && !self.is_last {
            // After an error there is nothing more.
            self.is_last = true;
            if let Err(error) = self.read() {
                return Some(Err(error));
            }
        }
        self.rows.next().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Changes, Store};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn all_rows_of_a_range_are_met_once_and_in_order(
            keys in proptest::collection::btree_set(proptest::collection::vec(0_u8..4, 0..4), 0..20),
            bounds in any::<[[u8; 2]; 2]>(), reverse in any::<bool>(), page in 1_usize..6,
        ) {
            let store = Store::on(redb::backends::InMemoryBackend::new()).expect("a store");
            let changes = keys.iter().map(|key| ((Table::State, key.clone()), Some(key.clone())));
            store.commit(&changes.collect::<Changes>()).expect("a commit");
            let snapshot = store.snapshot().expect("a snapshot");
            let [start, end] = bounds.map(|bound| bound.map(|byte| byte % 5).to_vec());
            let walked = Walk::new(&snapshot, Table::State, (start.clone(), end.clone()), reverse, page);
            let walked = walked.collect::<Result<Vec<Row>, _>>().expect("rows");
            prop_assert_eq!(walked, snapshot.range(Table::State, &start, &end, usize::MAX, reverse).expect("rows"));
        }
    }
}
