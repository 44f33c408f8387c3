//! Groups and links of an HDF5 file, followed into other files.
//!
//! Links are followed here, one component at a time, and not by the library: so that every file is checked for
//! completeness before it is read, attributes are looked up in the file that holds them, groups behind links into
//! other files can be listed, and a dangling link gives one short sentence.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rust_hdf5::{H5File, LinkClass};

use super::native::{NativeDataset, open_file};
use super::{Dataset, Element, Layout, guarded, shape_text};
use crate::error::{Error, Result};

/// Links followed on the way to one object; more is a cycle.
const MAX_HOPS: usize = 32;
/// Groups below groups that are walked.
const MAX_DEPTH: usize = 16;
/// Objects listed of one file, so that a damaged file cannot keep us busy for ever.
const MAX_OBJECTS: usize = 200_000;

/// Where an object really is: after all links.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Located {
    /// The file that holds it.
    pub(crate) file: PathBuf,
    /// Its path there, with leading slash.
    pub(crate) path: String,
    /// Whether it is a group.
    pub(crate) is_group: bool,
}

/// A dataset found by [`Tree::datasets`].
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Its path as seen from the root file.
    pub(crate) path: String,
    /// Where it really is.
    pub(crate) at: Located,
    pub(crate) shape: Vec<usize>,
    pub(crate) element: Element,
}

impl Found {
    /// The path of the group that holds it.
    pub(crate) fn parent(&self) -> &str {
        parent(&self.path)
    }
    /// The last component of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
    /// `path (shape, type)` for messages.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} ({}, {})",
            self.path,
            shape_text(&self.shape),
            self.element.describe()
        )
    }
}

/// The path above.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A file and the files that its links lead to, opened as they are needed.
pub(crate) struct Tree {
    root: PathBuf,
    files: RefCell<BTreeMap<PathBuf, Rc<H5File>>>,
}

impl Tree {
    /// Opens the file.
    pub(crate) fn open(path: &Path) -> Result<Tree> {
        let tree = Tree {
            root: path.to_path_buf(),
            files: RefCell::default(),
        };
        tree.file(path)?;
        Ok(tree)
    }

    /// The file that was opened.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Every file opened so far.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.files.borrow().keys().cloned().collect()
    }

    fn file(&self, path: &Path) -> Result<Rc<H5File>> {
        if let Some(file) = self.files.borrow().get(path) {
            return Ok(Rc::clone(file));
        }
        let file = Rc::new(guarded(path, || open_file(path))?);
        self.files
            .borrow_mut()
            .insert(path.to_path_buf(), Rc::clone(&file));
        Ok(file)
    }

    /// Follows `path` from the root file to where the object really is.
    ///
    /// # Errors
    /// [`Error::Dataset`] for what is not there, and for a link that leads nowhere.
    pub(crate) fn locate(&self, path: &str) -> Result<Located> {
        self.locate_from(&self.root, path)
    }

    /// As [`Tree::locate`], from another file.
    pub(super) fn locate_from(&self, file: &Path, path: &str) -> Result<Located> {
        guarded(file, || self.follow(file, path))
    }

    fn follow(&self, file: &Path, path: &str) -> Result<Located> {
        let mut file = file.to_path_buf();
        let mut done = String::new();
        let mut todo: VecDeque<String> = components(path).collect();
        let mut hops = 0;
        while let Some(name) = todo.pop_front() {
            let here = format!("{done}/{name}");
            let link = self
                .link(&file, &done, &name)
                .ok_or_else(|| self.missing(path, &file, &here))?;
            match link {
                LinkClass::Hard => done = here,
                LinkClass::Soft { path: target } => {
                    if target.starts_with('/') {
                        done.clear();
                    }
                    prepend(&mut todo, &target);
                    hops += 1;
                }
                LinkClass::External {
                    file: target_file,
                    path: target,
                } => {
                    file = find_beside(&file, &target_file)
                        .ok_or_else(|| self.dangling(path, &target_file, &target))?;
                    done.clear();
                    prepend(&mut todo, &target);
                    hops += 1;
                }
                LinkClass::UserDefined { link_type } => {
                    return Err(Error::dataset(
                        &self.root,
                        path,
                        format!(
                            "{here} is a user-defined link of class {link_type}, which cannot be followed"
                        ),
                        "give the path of the dataset itself",
                    ));
                }
            }
            if hops > MAX_HOPS {
                return Err(Error::dataset(
                    &self.root,
                    path,
                    "its links go in a circle",
                    "give the path of the dataset itself",
                ));
            }
        }
        let is_group = self.group_exists(&file, &done)?;
        Ok(Located {
            file,
            path: if done.is_empty() { "/".into() } else { done },
            is_group,
        })
    }

    fn group_exists(&self, file: &Path, path: &str) -> Result<bool> {
        let file = self.file(file)?;
        let path = path.trim_start_matches('/');
        Ok(path.is_empty() || file.root_group().group(path).is_ok())
    }

    fn link(&self, file: &Path, group: &str, name: &str) -> Option<LinkClass> {
        let file = self.file(file).ok()?;
        let group = group.trim_start_matches('/');
        let root = file.root_group();
        let group = if group.is_empty() {
            root
        } else {
            root.group(group).ok()?
        };
        group.link_class(name).ok()
    }

    fn missing(&self, path: &str, file: &Path, here: &str) -> Error {
        // A file behind a link may be truncated or no HDF5: that says more than a missing name.
        if let Err(error) = self.file(file) {
            return error;
        }
        let problem = if file == self.root && components(path).eq(components(here)) {
            "it does not exist".to_string()
        } else {
            format!("{here} does not exist in {}", file.display())
        };
        Error::dataset(
            &self.root,
            path,
            problem,
            "`tomodelta inspect` and `h5ls -r` list what is there",
        )
    }

    fn dangling(&self, path: &str, file: &str, target: &str) -> Error {
        let name = Path::new(file)
            .file_name()
            .map_or(file.to_string(), |name| name.to_string_lossy().into_owned());
        Error::dataset(
            &self.root,
            path,
            format!("it is a link to {target} in {file}, and that file is missing"),
            format!(
                "put {name} where the link points or beside {}",
                self.root.display()
            ),
        )
    }

    /// Opens a dataset for its small values: angles, keys, texts and attributes.
    pub(crate) fn dataset(&self, at: &Located) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.native(at)?))
    }

    pub(super) fn native(&self, at: &Located) -> Result<NativeDataset> {
        if at.is_group {
            return Err(Error::dataset(
                &at.file,
                &at.path,
                "it is a group, not a dataset",
                "give the path of a dataset in it",
            ));
        }
        let file = self.file(&at.file)?;
        guarded(&at.file, || NativeDataset::open(&file, &at.file, &at.path))
    }

    /// All values of a small numeric dataset, and its `units`.
    pub(crate) fn numbers(&self, path: &str) -> Result<(Vec<f64>, Option<String>)> {
        guarded(&self.root, || self.read_numbers(path))
    }

    fn read_numbers(&self, path: &str) -> Result<(Vec<f64>, Option<String>)> {
        let at = self.locate(path)?;
        let dataset = self.dataset(&at)?;
        if dataset.info().layout == Layout::Virtual {
            // The library fills what a missing source leaves out, so each source has to be there.
            super::virtual_layout::check_sources(self, &at)?;
        }
        let values = dataset.read_numbers().map_err(|problem| {
            Error::dataset(
                &at.file,
                &at.path,
                problem,
                "give the path of a numeric dataset with one value per frame",
            )
        })?;
        Ok((
            values,
            dataset
                .text_attribute("units")
                .or_else(|| dataset.text_attribute("unit")),
        ))
    }

    /// The first text of a text dataset, where there is one.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let read = || {
            let at = self.locate(path)?;
            let text = self.dataset(&at)?.read_text();
            Ok(text.ok().filter(|text| !text.is_empty()))
        };
        guarded(&self.root, read).ok().flatten()
    }

    /// Every dataset that can be reached, sorted by path, and every link that leads nowhere.
    ///
    /// A group that several links lead to is walked once, under its own name where it has one in the root file.
    pub(crate) fn datasets(&self) -> (Vec<Found>, Vec<String>) {
        let mut walk = Walk {
            found: Vec::new(),
            dangling: Vec::new(),
            seen: BTreeSet::new(),
            later: VecDeque::new(),
        };
        walk.later
            .push_back((self.root.clone(), String::new(), String::new(), 0));
        while let Some((file, group, seen_as, depth)) = walk.later.pop_front() {
            // a group that cannot be listed hides what is in it, as a damaged link hides its target
            let listed = guarded(&file, || {
                self.walk(&mut walk, &file, &group, &seen_as, depth);
                Ok(())
            });
            if listed.is_err() {
                walk.dangling.push(format!("{seen_as}/"));
            }
        }
        walk.found.sort_by(|a, b| a.path.cmp(&b.path));
        (walk.found, walk.dangling)
    }

    fn walk(&self, walk: &mut Walk, file: &Path, group: &str, seen_as: &str, depth: usize) {
        let Ok(open) = self.file(file) else { return };
        let root = open.root_group();
        let key = group.trim_start_matches('/');
        let handle = if key.is_empty() {
            Ok(root)
        } else {
            root.group(key)
        };
        let Ok(handle) = handle else { return };
        // The handle's name is the group's own, whichever hard link led here.
        if depth > MAX_DEPTH
            || !walk
                .seen
                .insert((file.to_path_buf(), handle.name().to_string()))
        {
            return;
        }
        for name in handle.link_names().unwrap_or_default() {
            if walk.found.len() + walk.dangling.len() >= MAX_OBJECTS {
                return;
            }
            let path = format!("{seen_as}/{name}");
            let inside = format!("{group}/{name}");
            if matches!(handle.link_class(&name), Ok(LinkClass::Hard)) {
                if self.group_exists(file, &inside).unwrap_or(false) {
                    self.walk(walk, file, &inside, &path, depth + 1);
                } else {
                    self.note(
                        walk,
                        path,
                        Located {
                            file: file.to_path_buf(),
                            path: inside,
                            is_group: false,
                        },
                    );
                }
                continue;
            }
            match self.locate_from(file, &inside) {
                Ok(at) if at.is_group => walk.later.push_back((at.file, at.path, path, depth + 1)),
                Ok(at) => self.note(walk, path, at),
                Err(_) => walk.dangling.push(path),
            }
        }
    }

    fn note(&self, walk: &mut Walk, path: String, at: Located) {
        match self.native(&at) {
            Ok(dataset) => {
                let info = dataset.info();
                walk.found.push(Found {
                    path,
                    shape: info.shape.clone(),
                    element: info.element.clone(),
                    at,
                });
            }
            Err(_) => walk.dangling.push(path),
        }
    }
}

struct Walk {
    found: Vec<Found>,
    dangling: Vec<String>,
    seen: BTreeSet<(PathBuf, String)>,
    /// Groups behind soft and external links, with the path under which they are seen.
    later: VecDeque<(PathBuf, String, String, usize)>,
}

fn components(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_string)
}

fn prepend(todo: &mut VecDeque<String>, path: &str) {
    for part in components(path).collect::<Vec<_>>().into_iter().rev() {
        todo.push_front(part);
    }
}

/// The file that a link or a virtual dataset of `from` names: where it says, relative to `from`, or by its bare name
/// beside `from` (for absolute paths of the machine where the scan was taken).
pub(super) fn find_beside(from: &Path, name: &str) -> Option<PathBuf> {
    let folder = from.parent().unwrap_or(Path::new(""));
    let name = Path::new(name);
    let mut tried = vec![folder.join(name)];
    tried.extend(name.file_name().map(|bare| folder.join(bare)));
    tried.into_iter().find(|path| path.is_file())
}
