//! NXtomo and its many relatives: a detector whose frames are sorted by an image key.
//!
//! Neither a `definition` nor NX_class attributes nor `default` are asked: real files lack them or have them wrong. A
//! detector is a group that holds an `image_key` and a three-dimensional dataset of the same length.

use super::angles::{self, Angles};
use super::hdf5::{Element, Found, Tree, parent};
use super::hdf5_scan::Sources;
use super::pixel_size;
use crate::config::InputConfig;
use crate::error::{Error, Result};

/// A group with images and an image key.
#[derive(Clone, Copy)]
struct Detector<'a> {
    data: &'a Found,
    image_key: &'a Found,
}

/// Finds the detector; `None` where the file has no image key at all.
///
/// # Errors
/// Images that are missing or do not fit the image key, and several detectors of which none was chosen.
pub(super) fn find(
    tree: &Tree,
    found: &[Found],
    dangling: &[String],
    input: &InputConfig,
) -> Result<Option<Sources>> {
    let keys: Vec<&Found> = found
        .iter()
        .filter(|d| match &input.image_key {
            Some(path) => d.path.trim_matches('/') == path.trim_matches('/'),
            None => d.name() == "image_key",
        })
        .filter(|d| d.shape.len() == 1 && d.element.is_number())
        .collect();
    if keys.is_empty() {
        return Ok(None);
    }
    let images: Vec<&Found> = found
        .iter()
        .filter(|d| d.shape.len() == 3 && matches!(d.element, Element::Pixel(_)))
        .collect();
    let mut detectors: Vec<Detector> = Vec::new();
    for &image_key in &keys {
        for &data in images.iter().filter(|d| d.shape[0] == image_key.shape[0]) {
            // An image key named by the user, or the only one, may stand elsewhere.
            if data.parent() == image_key.parent()
                || (input.image_key.is_some() && beside_no_key(data, found))
            {
                detectors.push(Detector { data, image_key });
            }
        }
    }
    if detectors.is_empty() {
        detectors = apart(&keys, &images);
    }
    let detector = choose(tree, detectors, &keys, &images, dangling, input)?;
    let data = detector.data.path.clone();
    let mut sources = Sources {
        layout: "NXtomo",
        data: data.clone(),
        image_key: Some(detector.image_key.path.clone()),
        ..Sources::default()
    };
    if input.angles.is_none() {
        let lengths = lengths(tree, &detector.data.shape, Some(&detector.image_key.path));
        sources.angles = find_angles(tree, found, &data, &lengths, &mut sources.warnings);
    }
    if !dangling.is_empty() {
        sources.warnings.push(format!(
            "{} links of the file lead nowhere; none of them was needed",
            dangling.len()
        ));
    }
    metadata(tree, &data, &mut sources);
    if sources.pixel_size_um.is_none() {
        let elsewhere = found.iter().find(|d| {
            d.name() == "x_pixel_size"
                && d.path.starts_with(entry(&data))
                && d.parent() != parent(&data)
        });
        sources.pixel_size_um =
            elsewhere.and_then(|size| pixel_size::read(tree, &size.path, &mut sources.warnings));
    }
    Ok(Some(sources))
}

fn beside_no_key(data: &Found, found: &[Found]) -> bool {
    let own = format!("{}/image_key", data.parent());
    !found.iter().any(|d| d.path == own)
}

/// Image key and images in different groups: taken where both are the only ones of their entry.
fn apart<'a>(keys: &[&'a Found], images: &[&'a Found]) -> Vec<Detector<'a>> {
    let mut detectors = Vec::new();
    for &image_key in keys {
        let mut fitting = images.iter().filter(|d| {
            d.shape[0] == image_key.shape[0] && entry(&d.path) == entry(&image_key.path)
        });
        if let (Some(&data), None) = (fitting.next(), fitting.next()) {
            detectors.push(Detector { data, image_key });
        }
    }
    detectors
}

fn choose<'a>(
    tree: &Tree,
    mut detectors: Vec<Detector<'a>>,
    keys: &[&Found],
    images: &[&Found],
    dangling: &[String],
    input: &InputConfig,
) -> Result<Detector<'a>> {
    let named = |path: &str| match &input.detector {
        None => true,
        Some(name) => {
            let name = name.trim_matches('/');
            let group = path.trim_matches('/');
            group.split('/').any(|part| part == name) || group.ends_with(name)
        }
    };
    let all: Vec<String> = detectors
        .iter()
        .map(|d| d.data.parent().to_string())
        .collect();
    detectors.retain(|d| named(d.data.parent()));
    if detectors
        .iter()
        .any(|d| d.data.path.contains("/instrument/"))
    {
        detectors.retain(|d| d.data.path.contains("/instrument/"));
    }
    // The same images behind several links are one detector.
    detectors.sort_by(|a, b| {
        a.data
            .at
            .cmp(&b.data.at)
            .then_with(|| a.data.path.cmp(&b.data.path))
    });
    detectors.dedup_by(|a, b| a.data.at == b.data.at);
    match detectors[..] {
        [detector] => return Ok(detector),
        [] => {}
        _ => {
            let groups: Vec<&str> = detectors.iter().map(|d| d.data.parent()).collect();
            return Err(Error::input(
                tree.root(),
                format!(
                    "several detectors have images and an image key: {}",
                    groups.join(", ")
                ),
                "choose one with input.detector",
            ));
        }
    }
    if let Some(error) = lost_images(
        tree,
        dangling.iter().filter(|link| named(parent(link))),
        keys,
    ) {
        return Err(error);
    }
    if let Some(name) = input.detector.as_ref().filter(|_| !all.is_empty()) {
        return Err(Error::config(
            "input.detector",
            name,
            format!(
                "no such detector with images and an image key in {}; there are {}",
                tree.root().display(),
                all.join(", ")
            ),
        ));
    }
    let key = keys[0];
    let problem = match images
        .iter()
        .find(|d| entry(&d.path) == entry(&key.path))
        .or(images.first())
    {
        Some(image) => {
            format!(
                "the image key {} has {} values, but {} has {} frames",
                key.path, key.shape[0], image.path, image.shape[0]
            )
        }
        None => format!(
            "there is an image key, {}, but no dataset with three axes of numbers",
            key.path
        ),
    };
    Err(Error::input(
        tree.root(),
        problem,
        "name the images with --data, and their image key with input.image_key",
    ))
}

/// The images that belong to an image key may be behind a link that leads nowhere: that error says which file.
fn lost_images<'a>(
    tree: &Tree,
    dangling: impl Iterator<Item = &'a String>,
    keys: &[&Found],
) -> Option<Error> {
    let beside_key: Vec<&String> = dangling
        .filter(|link| keys.iter().any(|key| key.parent() == parent(link)))
        .collect();
    let data: Vec<&String> = beside_key
        .iter()
        .copied()
        .filter(|link| link.ends_with("/data"))
        .collect();
    let links = if data.is_empty() { beside_key } else { data };
    let mut missing: Vec<(String, Error)> = Vec::new();
    for link in links {
        match tree.locate(link).and_then(|at| tree.dataset(&at).map(drop)) {
            Ok(()) => {}
            Err(Error::Dataset {
                path,
                dataset,
                problem,
                hint,
            }) => {
                if !missing.iter().any(|(other, _)| *other == problem) {
                    missing.push((
                        problem.clone(),
                        Error::Dataset {
                            path,
                            dataset,
                            problem,
                            hint,
                        },
                    ));
                }
            }
            // The file is there and damaged: nearer to the cause than a file that may never have been.
            Err(other) => return Some(other),
        }
    }
    if missing.len() < 2 {
        return missing.pop().map(|(_, error)| error);
    }
    let problems: Vec<String> = missing.into_iter().map(|(problem, _)| problem).collect();
    Some(Error::input(
        tree.root(),
        format!(
            "no detector's images can be opened: {}",
            problems.join("; ")
        ),
        "put the camera's file where the link points or beside this one",
    ))
}

/// The top group of a path, with slashes.
fn entry(path: &str) -> &str {
    match path[1..].find('/') {
        Some(end) => &path[..end + 2],
        None => path,
    }
}

/// Numbers of angles that would fit: of all frames, and of the projections.
pub(super) fn lengths(tree: &Tree, shape: &[usize], image_key: Option<&str>) -> Vec<usize> {
    let mut lengths: Vec<usize> = shape.first().copied().into_iter().collect();
    if let Some((keys, _)) = image_key.and_then(|path| tree.numbers(path).ok()) {
        lengths.push(keys.iter().filter(|&&key| key == 0.0).count());
    }
    lengths
}

/// The angles of the projections: `rotation_angle` (or `theta`, `rot`, `omega` in the name), one-dimensional, of a fitting length;
/// nearest to the data where there are several.
pub(super) fn find_angles(
    tree: &Tree,
    found: &[Found],
    data: &str,
    lengths: &[usize],
    warnings: &mut Vec<String>,
) -> Option<Angles> {
    let mut candidates: Vec<(i32, &Found)> = found
        .iter()
        .filter(|d| d.shape.len() == 1 && lengths.contains(&d.shape[0]) && d.element.is_number())
        .filter_map(|d| Some((score(d, data)?, d)))
        .collect();
    candidates.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.path.cmp(&b.1.path)));
    for (_, candidate) in candidates {
        let Ok(angles) = angles::from_dataset(tree, &candidate.path) else {
            continue;
        };
        let finite = || {
            angles
                .values
                .iter()
                .copied()
                .filter(|value| value.is_finite())
        };
        let exact = candidate.name() == "rotation_angle" || candidate.name() == "theta";
        // A motor that stood still is not the one that turned the sample.
        if !exact
            && finite().fold(f64::NEG_INFINITY, f64::max) - finite().fold(f64::INFINITY, f64::min)
                < 1.5
        {
            continue;
        }
        if !exact {
            warnings.push(format!(
                "the angles were taken from {} by its name; give --angles if that is wrong",
                candidate.path
            ));
        }
        return Some(angles);
    }
    None
}

/// How well a dataset's name and place suit the angles of `data`.
fn score(candidate: &Found, data: &str) -> Option<i32> {
    let name = candidate.name().to_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphabetic()).collect();
    let by_name = if name == "rotation_angle" {
        100
    } else if name.contains("rotation_angle") || name == "theta" {
        80
    } else if words.contains(&"theta") {
        60
    } else if words
        .iter()
        .any(|word| ["rot", "rotation", "omega"].contains(word))
    {
        50
    } else if words.contains(&"angle") || words.contains(&"angles") {
        30
    } else {
        return None;
    };
    // Where the motor was beats where it was sent to.
    let demanded = if words
        .iter()
        .any(|word| ["set", "demand", "setpoint"].contains(word))
    {
        -5
    } else {
        0
    };
    let place = if candidate.parent() == parent(data) {
        9
    } else if entry(&candidate.path) == entry(data) {
        let shared = candidate
            .path
            .split('/')
            .zip(data.split('/'))
            .take_while(|(a, b)| a == b)
            .count();
        3 + i32::try_from(shared).unwrap_or(0).min(5)
    } else {
        0
    };
    Some(by_name + demanded + place)
}

/// Pixel size beside the data, and the start of the scan.
pub(super) fn metadata(tree: &Tree, data: &str, sources: &mut Sources) {
    let group = parent(data);
    let x = pixel_size::read(
        tree,
        &format!("{group}/x_pixel_size"),
        &mut sources.warnings,
    );
    if let (Some(x), Some(y)) = (
        x,
        pixel_size::read(tree, &format!("{group}/y_pixel_size"), &mut Vec::new()),
    ) && (x - y).abs() > 0.01 * x
    {
        sources.warnings.push(format!(
            "pixels are not square: {x} um wide and {y} um high; the width is used"
        ));
    }
    sources.pixel_size_um = x;
    let mut above = group;
    while !above.is_empty() && sources.start_time.is_none() {
        sources.start_time = tree.text(&format!("{above}/start_time"));
        above = parent(above);
    }
}
