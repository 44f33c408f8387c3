//! A sinogram with its columns contiguous, and columns sorted along the angle.

/// A sinogram `[col, angle]`: every detector column is one contiguous slice.
#[derive(Default)]
pub(in crate::correct) struct Columns {
    n_cols: usize,
    n_angles: usize,
    values: Vec<f32>,
}

/// Side of the square blocks of a transposition: one cache line of f32.
const BLOCK: usize = 16;

impl Columns {
    pub(in crate::correct) fn n_cols(&self) -> usize {
        self.n_cols
    }

    pub(in crate::correct) fn n_angles(&self) -> usize {
        self.n_angles
    }

    /// Sets the shape; the values are whatever was there.
    pub(in crate::correct) fn reshape(&mut self, n_cols: usize, n_angles: usize) {
        (self.n_cols, self.n_angles) = (n_cols, n_angles);
        self.values.resize(n_cols * n_angles, 0.0);
    }

    /// Takes over a sinogram `[angle, col]`.
    pub(in crate::correct) fn read(&mut self, sinogram: &[f32], n_cols: usize) {
        let n_angles = sinogram.len().checked_div(n_cols).unwrap_or(0);
        self.reshape(n_cols, n_angles);
        transpose(sinogram, n_cols, &mut self.values, n_angles);
    }

    /// Gives the sinogram back as `[angle, col]`.
    pub(in crate::correct) fn write(&self, sinogram: &mut [f32]) {
        transpose(&self.values, self.n_angles, sinogram, self.n_cols);
    }

    /// One column, `[angle]`.
    pub(in crate::correct) fn column(&self, col: usize) -> &[f32] {
        &self.values[col * self.n_angles..(col + 1) * self.n_angles]
    }

    /// One column, `[angle]`.
    pub(in crate::correct) fn column_mut(&mut self, col: usize) -> &mut [f32] {
        &mut self.values[col * self.n_angles..(col + 1) * self.n_angles]
    }

    /// All values, column after column.
    pub(in crate::correct) fn values(&self) -> &[f32] {
        &self.values
    }

    /// All columns in order, each `[angle]`.
    pub(in crate::correct) fn iter_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_exact_mut(self.n_angles.max(1))
    }

    /// All columns in order, each `[angle]`.
    pub(in crate::correct) fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.n_angles.max(1))
    }

    /// Replaces the `flagged` columns by straight lines between the nearest good ones; the nearest good column beyond
    /// the outermost. Without any good column nothing changes.
    pub(super) fn bridge(&mut self, flagged: &[bool]) {
        let good = |col: &usize| !flagged[*col];
        for col in (0..self.n_cols).filter(|&col| flagged[col]) {
            let left = (0..col).rev().find(good);
            let right = (col + 1..self.n_cols).find(good);
            let (left, right) = match (left, right) {
                (Some(left), Some(right)) => (left, right),
                (Some(only), None) | (None, Some(only)) => (only, only),
                (None, None) => return,
            };
            let weight = if left == right {
                0.0
            } else {
                (col - left) as f32 / (right - left) as f32
            };
            for angle in 0..self.n_angles {
                let (a, b) = (
                    self.values[left * self.n_angles + angle],
                    self.values[right * self.n_angles + angle],
                );
                self.values[col * self.n_angles + angle] = a + weight * (b - a);
            }
        }
    }

    /// Copies the column at distance `pad` from either edge into all columns beyond it.
    pub(super) fn repeat_edges(&mut self, pad: usize) {
        let (n, end) = (self.n_angles, self.values.len());
        let (first, last) = (pad * n, end - (pad + 1) * n);
        for k in 0..pad {
            self.values.copy_within(first..first + n, k * n);
            self.values.copy_within(last..last + n, end - (k + 1) * n);
        }
    }

    /// All values, column after column.
    #[cfg(test)]
    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.values.capacity() * 4
    }
}

/// `[rows, from_cols]` into `[from_cols, rows]`.
fn transpose(from: &[f32], from_cols: usize, into: &mut [f32], into_cols: usize) {
    let mut block = [[0f32; BLOCK]; BLOCK];
    for row in (0..into_cols).step_by(BLOCK) {
        let height = BLOCK.min(into_cols - row);
        for col in (0..from_cols).step_by(BLOCK) {
            let width = BLOCK.min(from_cols - col);
            for (i, line) in block[..height].iter_mut().enumerate() {
                let start = (row + i) * from_cols + col;
                line[..width].copy_from_slice(&from[start..start + width]);
            }
            for j in 0..width {
                let start = (col + j) * into_cols + row;
                into[start..start + height]
                    .iter_mut()
                    .zip(&block)
                    .for_each(|(value, line)| *value = line[j]);
            }
        }
    }
}

/// Columns sorted along the angle, ascending, with the way back.
#[derive(Default)]
pub(super) struct SortedColumns {
    /// `[col, rank]`.
    pub(super) values: Columns,
    /// The angle that each rank came from, `[col, rank]`. Equal values keep the order of their angles.
    order: Vec<u32>,
    items: [Vec<u64>; 2],
}

impl SortedColumns {
    /// Sorts every column of `columns`.
    pub(super) fn sort(&mut self, columns: &Columns) {
        self.values.reshape(columns.n_cols, columns.n_angles);
        self.order.resize(columns.values.len(), 0);
        let order = self.order.chunks_exact_mut(columns.n_angles.max(1));
        for ((column, sorted), order) in columns.iter().zip(self.values.iter_mut()).zip(order) {
            sort_column(column, sorted, order, &mut self.items);
        }
    }

    /// Puts `ranked` (such as smoothed sorted columns) back into the order of the angles.
    pub(super) fn unsort(&self, ranked: &Columns, columns: &mut Columns) {
        columns.reshape(ranked.n_cols, ranked.n_angles);
        unsort(ranked, &self.order, columns);
    }

    /// The angle of each rank.
    #[cfg(test)]
    pub(super) fn order(&self) -> &[u32] {
        &self.order
    }

    /// Puts the sorted values themselves back.
    pub(super) fn unsort_values(&self, columns: &mut Columns) {
        self.unsort(&self.values, columns);
    }

    /// Puts `ranked` back into this object's own values, which become columns in the order of the angles.
    pub(super) fn unsort_in_place(&mut self, ranked: &Columns) -> &mut Columns {
        unsort(ranked, &self.order, &mut self.values);
        &mut self.values
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.values.held()
            + self.order.capacity() * 4
            + self
                .items
                .iter()
                .map(|items| items.capacity() * 8)
                .sum::<usize>()
    }
}

fn unsort(ranked: &Columns, order: &[u32], into: &mut Columns) {
    let order = order.chunks_exact(ranked.n_angles.max(1));
    for ((ranked, order), column) in ranked.iter().zip(order).zip(into.iter_mut()) {
        for (&value, &angle) in ranked.iter().zip(order) {
            column[angle as usize] = value;
        }
    }
}

/// Widest digit of the radix sort: its counters stay in the first-level cache beside a column.
const MOST_DIGIT_BITS: u32 = 11;

/// Stable radix sort of one column (least significant digit first) on keys that sort as the floats do.
///
/// The smallest key is subtracted first: transmissions share their sign and most of the exponent, which saves a pass.
fn sort_column(column: &[f32], sorted: &mut [f32], order: &mut [u32], items: &mut [Vec<u64>; 2]) {
    let (mut least, mut most) = (u32::MAX, 0);
    for &value in column {
        let key = sortable(value);
        (least, most) = (least.min(key), most.max(key));
    }
    let [from, into] = items;
    from.clear();
    from.extend(
        column
            .iter()
            .enumerate()
            .map(|(angle, &v)| u64::from(sortable(v) - least) << 32 | angle as u64),
    );
    let bits = u32::BITS - most.saturating_sub(least).leading_zeros();
    let passes = bits.div_ceil(MOST_DIGIT_BITS);
    if column.len() < 64 {
        from.sort_unstable();
    } else {
        into.resize(from.len(), 0);
        let digit_bits = bits.div_ceil(passes.max(1));
        let mut starts = [0u32; 1 << MOST_DIGIT_BITS];
        for pass in 0..passes {
            let shift = 32 + pass * digit_bits;
            let digit = |item: u64| (item >> shift) as usize & ((1 << digit_bits) - 1);
            let starts = &mut starts[..1 << digit_bits];
            starts.fill(0);
            from.iter().for_each(|&item| starts[digit(item)] += 1);
            let mut start = 0;
            for count in starts.iter_mut() {
                (*count, start) = (start, start + *count);
            }
            for &item in from.iter() {
                let place = &mut starts[digit(item)];
                into[*place as usize] = item;
                *place += 1;
            }
            std::mem::swap(from, into);
        }
    }
    for ((item, sorted), order) in from.iter().zip(sorted).zip(order) {
        let angle = *item as u32;
        (*sorted, *order) = (column[angle as usize], angle);
    }
}

/// A key that sorts as the float does: -inf below negative below positive below +inf; NaN at the ends.
fn sortable(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(index: usize) -> f32 {
        let bits = (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        0.2 + bits as f32 / (1u64 << 24) as f32
    }

    fn check_sort(column: &[f32]) {
        let mut expected: Vec<u32> = (0..column.len() as u32).collect();
        expected.sort_by(|&a, &b| column[a as usize].total_cmp(&column[b as usize]));
        let (mut sorted, mut order) = (vec![f32::NAN; column.len()], vec![9; column.len()]);
        sort_column(
            column,
            &mut sorted,
            &mut order,
            &mut [vec![7; 5], vec![7; 5]],
        );
        assert_eq!(order, expected);
        assert!(
            sorted
                .iter()
                .zip(&order)
                .all(|(v, &o)| v.to_bits() == column[o as usize].to_bits())
        );
    }

    #[test]
    fn the_radix_sort_equals_a_stable_comparison_sort() {
        for length in [0, 1, 2, 63, 64, 65, 1501] {
            check_sort(&(0..length).map(noise).collect::<Vec<_>>());
            check_sort(
                &(0..length)
                    .map(|i| (noise(i) * 7.0).floor() - 3.0)
                    .collect::<Vec<_>>(),
            );
            check_sort(&vec![0.5; length]);
        }
        check_sort(
            &(0..200)
                .map(|i| noise(i).powi(40) * if i % 3 == 0 { -1e30 } else { 1e30 })
                .collect::<Vec<_>>(),
        );
        let mut odd = vec![1.0; 100];
        (odd[3], odd[50], odd[7], odd[8]) = (f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0);
        check_sort(&odd);
    }

    #[test]
    fn unsorting_undoes_sorting() {
        let (n_cols, n_angles) = (37, 101);
        let sinogram: Vec<f32> = (0..n_cols * n_angles).map(noise).collect();
        let (mut columns, mut sorted, mut back) = (
            Columns::default(),
            SortedColumns::default(),
            Columns::default(),
        );
        columns.read(&sinogram, n_cols);
        assert_eq!(columns.column(5)[7], sinogram[7 * n_cols + 5]);
        sorted.sort(&columns);
        assert!(
            sorted.values.iter().all(<[f32]>::is_sorted)
                && sorted.values.values() != columns.values()
        );
        sorted.unsort_values(&mut back);
        let mut again = vec![f32::NAN; sinogram.len()];
        back.write(&mut again);
        assert_eq!(again, sinogram);
    }

    #[test]
    fn flagged_columns_become_straight_lines_between_good_ones() {
        let mut columns = Columns::default();
        columns.read(&[9.0, 1.0, 9.0, 9.0, 4.0, 9.0], 6);
        columns.bridge(&[true, false, true, true, false, true]);
        assert_eq!(columns.values(), [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
        columns.bridge(&[true; 6]);
        assert_eq!(columns.values(), [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
    }
}
