//! Size of a detector pixel \[um\], as far as a file says it believably.

use super::hdf5::Tree;

/// Sizes outside this range are no detector pixels seen through an optic \[um\].
const BELIEVABLE_UM: std::ops::RangeInclusive<f64> = 1e-3..=5e3;

/// Micrometres in one of the unit; `None` for a unit that is no length.
fn unit_um(unit: &str) -> Option<f64> {
    Some(match unit.trim().to_lowercase().as_str() {
        "m" | "metre" | "metres" | "meter" | "meters" => 1e6,
        "cm" | "centimetre" | "centimeter" => 1e4,
        "mm" | "millimetre" | "millimetres" | "millimeter" | "millimeters" => 1e3,
        // Both Unicode characters for micro, and the ASCII stand-in.
        "um" | "\u{b5}m" | "\u{3bc}m" | "micron" | "microns" | "micrometre" | "micrometres"
        | "micrometer" | "micrometers" => 1.0,
        "nm" | "nanometre" | "nanometres" | "nanometer" | "nanometers" => 1e-3,
        _ => return None,
    })
}

/// The size in dataset `path` \[um\], or nothing with a warning that says why; nothing at all where it is absent.
pub(crate) fn read(tree: &Tree, path: &str, warnings: &mut Vec<String>) -> Option<f64> {
    tree.locate(path).ok()?;
    let unusable = |why: String, warnings: &mut Vec<String>| {
        warnings.push(format!(
            "pixel size in {path} was not used: {why}; give pixel_size_um if it is known"
        ));
        None
    };
    let (values, unit) = match tree.numbers(path) {
        Ok(found) => found,
        Err(_) => return unusable("it is no number".into(), warnings),
    };
    let Some(value) = values
        .first()
        .copied()
        .filter(|value| value.is_finite() && *value > 0.0)
    else {
        return unusable(
            format!(
                "its value is {:?}",
                values.first().copied().unwrap_or(f64::NAN)
            ),
            warnings,
        );
    };
    let size = match unit.as_deref().map(|unit| (unit, unit_um(unit))) {
        Some((_, Some(factor))) => value * factor,
        Some((unit, None)) => return unusable(format!("its unit is \"{unit}\""), warnings),
        // Without a unit only metres, the SI unit, can be so small.
        None if (1e-9..=1e-3).contains(&value) => {
            warnings.push(format!(
                "{path} = {value} says no unit; metres were assumed"
            ));
            value * 1e6
        }
        None => return unusable(format!("it is {value} without a unit"), warnings),
    };
    if BELIEVABLE_UM.contains(&size) {
        return Some(size);
    }
    unusable(
        format!(
            "{size} um is outside {} to {} um",
            BELIEVABLE_UM.start(),
            BELIEVABLE_UM.end()
        ),
        warnings,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_micro_signs_and_all_spellings_are_lengths_and_nonsense_is_not() {
        for (unit, um) in [
            ("um", 1.0),
            ("\u{b5}m", 1.0),
            ("\u{3bc}m", 1.0),
            ("Microns", 1.0),
            ("mm", 1e3),
            ("m", 1e6),
            ("nm", 1e-3),
        ] {
            assert_eq!(unit_um(unit), Some(um), "{unit}");
        }
        for unit in ["undefined", "pixel", "", "degrees"] {
            assert_eq!(unit_um(unit), None, "{unit}");
        }
    }
}
