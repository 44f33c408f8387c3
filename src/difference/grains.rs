//! Grains: connected components of changed voxels, one slice after the other.
//!
//! Rows are cut into runs of adjacent voxels of one sign; runs that touch are joined in a union-find. Only the runs of two slices
//! are in memory, and one record per grain, whose statistics are merged when two grains turn out to be one. A component is named
//! by the first run of it in scan order, so its name does not depend on how the volume was cut into slabs.
//!
//! Runs: He, Chao and Suzuki, IEEE Trans. Image Process. 17 (2008) 749. Union-find by smallest name with path halving:
//! Tarjan and van Leeuwen, J. ACM 31 (1984) 245.

use crate::error::{Error, Result};

/// Voxels `x0..x1` of row `y` that changed in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Run {
    pub(super) y: u32,
    pub(super) x0: u32,
    pub(super) x1: u32,
    /// 1 or -1.
    pub(super) sign: i8,
    /// Largest change by size, with its sign.
    pub(super) peak: f32,
    /// Sum of the change.
    pub(super) sum: f64,
}

/// A run with the component that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Labelled {
    pub(super) y: u32,
    pub(super) x0: u32,
    pub(super) x1: u32,
    pub(super) component: u32,
}

/// Statistics of a component; bounds are inclusive.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grain {
    /// The name of its first run.
    pub(super) component: u32,
    pub(super) sign: i8,
    pub(super) voxels: u64,
    /// Sums of z, y and x over its voxels.
    pub(super) moments: [u64; 3],
    pub(super) low: [u32; 3],
    pub(super) high: [u32; 3],
    pub(super) sum: f64,
    pub(super) peak: f32,
}

impl Grain {
    fn of_run(component: u32, z: u32, run: &Run) -> Grain {
        let (x0, x1) = (u64::from(run.x0), u64::from(run.x1));
        let voxels = x1 - x0;
        Grain {
            component,
            sign: run.sign,
            voxels,
            moments: [
                u64::from(z) * voxels,
                u64::from(run.y) * voxels,
                (x0 + x1 - 1) * voxels / 2,
            ],
            low: [z, run.y, run.x0],
            high: [z, run.y, run.x1 - 1],
            sum: run.sum,
            peak: run.peak,
        }
    }

    fn merge(&mut self, other: &Grain) {
        self.voxels += other.voxels;
        for axis in 0..3 {
            self.moments[axis] += other.moments[axis];
            self.low[axis] = self.low[axis].min(other.low[axis]);
            self.high[axis] = self.high[axis].max(other.high[axis]);
        }
        self.sum += other.sum;
        if other.peak.abs() > self.peak.abs() {
            self.peak = other.peak;
        }
    }

    /// Middle of its voxels `[z, y, x]`.
    pub(super) fn centroid(&self) -> [f64; 3] {
        self.moments
            .map(|moment| moment as f64 / self.voxels as f64)
    }
}

/// Joins runs to grains.
pub(super) struct Labeller {
    /// Neighbours along z and y may be one further in x; `[same slice, slice below same row, slice below next row]`.
    slack: [Option<u32>; 3],
    min_voxels: u64,
    /// Components that can be told apart; less in a test of what happens beyond.
    most: u32,
    parent: Vec<u32>,
    /// Record of each component that is its own parent and still open.
    record: Vec<u32>,
    records: Vec<Grain>,
    free: Vec<u32>,
    open: Vec<u32>,
    below: Slice,
    here: Slice,
    z: u32,
    grains: Vec<Grain>,
    dropped: u64,
    dropped_voxels: u64,
    /// Components that have a run in the last slice, joined or not.
    pub(super) touched: u64,
}

/// Runs of a slice, by rows.
#[derive(Default)]
struct Slice {
    runs: Vec<Labelled>,
    signs: Vec<i8>,
    /// First run of each row, and the end.
    rows: Vec<u32>,
}

impl Slice {
    fn row(&self, y: usize) -> std::ops::Range<usize> {
        match (self.rows.get(y), self.rows.get(y + 1)) {
            (Some(&start), Some(&end)) => start as usize..end as usize,
            _ => 0..0,
        }
    }

    /// Row `y - 1` while row `y` is being filled: its end is where row `y` starts.
    fn row_before(&self, y: usize) -> std::ops::Range<usize> {
        self.rows[y - 1] as usize..self.rows[y] as usize
    }
}

/// What the labeller found.
pub(super) struct Grains {
    /// Kept grains in the order of their first voxel; the label of each is its place, from 1.
    pub(super) grains: Vec<Grain>,
    /// Label of each component, 0 for the dropped ones.
    pub(super) label_of: Vec<u32>,
    pub(super) dropped: u64,
    pub(super) dropped_voxels: u64,
}

const NONE: u32 = u32::MAX;

impl Labeller {
    /// `connectivity` 6, 18 or 26; grains of fewer than `min_voxels` are dropped. Slices start at `first_z`.
    pub(super) fn new(connectivity: u8, min_voxels: u64, first_z: usize) -> Labeller {
        let slack = match connectivity {
            6 => [Some(0), Some(0), None],
            18 => [Some(1), Some(1), Some(0)],
            _ => [Some(1), Some(1), Some(1)],
        };
        Labeller {
            slack,
            min_voxels,
            most: NONE,
            parent: Vec::new(),
            record: Vec::new(),
            records: Vec::new(),
            free: Vec::new(),
            open: Vec::new(),
            below: Slice::default(),
            here: Slice::default(),
            z: first_z as u32,
            grains: Vec::new(),
            dropped: 0,
            dropped_voxels: 0,
            touched: 0,
        }
    }

    /// Takes the runs of the next slice, sorted by row and column, and returns them with their components.
    pub(super) fn push(&mut self, runs: &[Run], height: usize) -> Result<&[Labelled]> {
        std::mem::swap(&mut self.below, &mut self.here);
        self.here.runs.clear();
        self.here.signs.clear();
        self.here.rows.clear();
        self.touched = 0;
        let mut next = 0;
        for y in 0..height {
            let start = self.here.runs.len();
            self.here.rows.push(start as u32);
            while let Some(run) = runs.get(next).filter(|run| run.y as usize == y) {
                self.here.runs.push(Labelled {
                    y: run.y,
                    x0: run.x0,
                    x1: run.x1,
                    component: NONE,
                });
                self.here.signs.push(run.sign);
                next += 1;
            }
            if self.here.runs.len() > start {
                self.join_row(y, start)?;
                for (index, run) in runs[next - (self.here.runs.len() - start)..next]
                    .iter()
                    .enumerate()
                {
                    self.add(start + index, run);
                }
            }
        }
        self.here.rows.push(self.here.runs.len() as u32);
        self.close();
        self.z += 1;
        Ok(&self.here.runs)
    }

    /// Gives the runs of row `y`, which start at `start`, the components of their neighbours or new ones.
    fn join_row(&mut self, y: usize, start: usize) -> Result<()> {
        let [same, level, diagonal] = self.slack;
        if let (Some(slack), true) = (same, y > 0) {
            let near = self.here.row_before(y);
            self.join(start, near, true, slack);
        }
        if let Some(slack) = level {
            let near = self.below.row(y);
            self.join(start, near, false, slack);
        }
        if let Some(slack) = diagonal {
            if y > 0 {
                let near = self.below.row(y - 1);
                self.join(start, near, false, slack);
            }
            let near = self.below.row(y + 1);
            self.join(start, near, false, slack);
        }
        for index in start..self.here.runs.len() {
            if self.here.runs[index].component == NONE {
                let component = self.parent.len() as u32;
                if component == self.most {
                    return Err(Error::config(
                        "difference.sigma",
                        "too low",
                        "more than four thousand million separate specks exceed the threshold; raise it or smooth",
                    ));
                }
                self.parent.push(component);
                self.record.push(NONE);
                self.open.push(component);
                self.here.runs[index].component = component;
            }
        }
        Ok(())
    }

    /// Joins the runs from `start` on with the runs `near` of this slice or the one below where they touch.
    fn join(&mut self, start: usize, near: std::ops::Range<usize>, same_slice: bool, slack: u32) {
        let (mut a, mut b) = (start, near.start);
        while a < self.here.runs.len() && b < near.end {
            let other = if same_slice { &self.here } else { &self.below };
            let (other, sign) = (other.runs[b], other.signs[b]);
            self.join_if_touching(a, other, sign, slack);
            // the one that ends first can touch nothing further on
            let end = self.here.runs[a].x1;
            if end < other.x1 {
                a += 1;
                continue;
            }
            // unless a run of the other sign follows without a gap: it touches the corner of the one that ends here
            if end == other.x1 && a + 1 < self.here.runs.len() {
                self.join_if_touching(a + 1, other, sign, slack);
            }
            b += 1;
        }
    }

    fn join_if_touching(&mut self, index: usize, other: Labelled, sign: i8, slack: u32) {
        let run = self.here.runs[index];
        if other.x0 < run.x1 + slack && run.x0 < other.x1 + slack && self.here.signs[index] == sign
        {
            let root = self.find(other.component);
            let joined = if run.component == NONE {
                root
            } else {
                self.unite(run.component, root)
            };
            self.here.runs[index].component = joined;
        }
    }

    fn find(&mut self, mut component: u32) -> u32 {
        while self.parent[component as usize] != component {
            let above = self.parent[self.parent[component as usize] as usize];
            self.parent[component as usize] = above;
            component = above;
        }
        component
    }

    /// The smaller name stays.
    fn unite(&mut self, a: u32, b: u32) -> u32 {
        let (a, b) = (self.find(a), self.find(b));
        let (keep, go) = (a.min(b), a.max(b));
        if keep == go {
            return keep;
        }
        self.parent[go as usize] = keep;
        let (kept, gone) = (self.record[keep as usize], self.record[go as usize]);
        if gone != NONE {
            if kept == NONE {
                self.record[keep as usize] = gone;
                self.records[gone as usize].component = keep;
            } else {
                let other = self.records[gone as usize].clone();
                self.records[kept as usize].merge(&other);
                self.free.push(gone);
            }
        }
        keep
    }

    /// Adds a run to the record of its component.
    fn add(&mut self, index: usize, run: &Run) {
        let root = self.find(self.here.runs[index].component);
        self.here.runs[index].component = root;
        let one = Grain::of_run(root, self.z, run);
        let record = self.record[root as usize];
        if record != NONE {
            let record = &mut self.records[record as usize];
            if record.high[0] != self.z {
                self.touched += 1;
            }
            record.merge(&one);
            return;
        }
        self.touched += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.records[place as usize] = one;
                place
            }
            None => {
                self.records.push(one);
                self.records.len() as u32 - 1
            }
        };
        self.record[root as usize] = place;
    }

    /// Puts away the components that have no run in this slice: nothing can join them any more.
    fn close(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        open.retain(|&component| {
            if self.parent[component as usize] != component {
                return false;
            }
            let place = self.record[component as usize];
            let grain = &self.records[place as usize];
            if grain.high[0] == self.z {
                return true;
            }
            if grain.voxels >= self.min_voxels {
                self.grains.push(grain.clone());
            } else {
                self.dropped += 1;
                self.dropped_voxels += grain.voxels;
            }
            self.free.push(place);
            self.record[component as usize] = NONE;
            false
        });
        self.open = open;
    }

    /// Ends the volume.
    pub(super) fn finish(mut self) -> Grains {
        // no grain has a run in the slice above the last one
        self.close();
        let mut grains = self.grains;
        grains.sort_unstable_by_key(|grain| grain.component);
        let mut label_of = vec![0u32; self.parent.len()];
        for (index, grain) in grains.iter().enumerate() {
            label_of[grain.component as usize] = index as u32 + 1;
        }
        // a parent has a smaller name, so it is settled before its children
        for component in 0..self.parent.len() {
            let parent = self.parent[component] as usize;
            if parent != component {
                label_of[component] = label_of[parent];
            }
        }
        Grains {
            grains,
            label_of,
            dropped: self.dropped,
            dropped_voxels: self.dropped_voxels,
        }
    }
}

#[cfg(test)]
#[path = "grains_tests.rs"]
mod tests;
