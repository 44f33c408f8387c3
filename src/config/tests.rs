//! The default text, unknown keys, flags over the file, and rules that name their key.

use super::parse::known_keys;
use super::*;
use crate::error::Error;

#[test]
fn the_default_text_gives_the_defaults() {
    assert_eq!(
        parse(DEFAULT_TOML, "default.toml", &[]).unwrap(),
        Config::default()
    );
}

#[test]
fn the_default_text_names_every_key() {
    let mut full = Config {
        mass: Some(MassConfig::default()),
        ..Config::default()
    };
    full.electrochemistry = Some(ElectrochemistryConfig::default());
    let text = toml::to_string(&full).unwrap();
    fn keys(table: &toml::Table, prefix: &str, out: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => keys(inner, &format!("{prefix}{key}."), out),
                _ => out.push(format!("{prefix}{key}")),
            }
        }
    }
    let (mut ours, mut known) = (Vec::new(), Vec::new());
    keys(&text.parse().unwrap(), "", &mut ours);
    keys(&known_keys(), "", &mut known);
    for key in ours {
        assert!(known.contains(&key), "{key} is missing from default.toml");
    }
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let error = parse("[difference]\nsigmma = 3.0\n", "a.toml", &[]).unwrap_err();
    assert!(error.to_string().contains("difference.sigma"), "{error}");
    let error = parse("[[scan]]\nname = 'a'\npth = 'b'\n", "a.toml", &[]).unwrap_err();
    assert!(error.to_string().contains("scan[0].path"), "{error}");
    let scan = |input: &str| format!("[[scan]]\nname = 'a'\npath = 'b'\ninput = {{ {input} }}\n");
    assert!(parse(&scan("flats = 'flats'"), "a.toml", &[]).is_ok());
    let error = parse(&scan("flat = 'flats'"), "a.toml", &[]).unwrap_err();
    assert!(error.to_string().contains("scan[0].input.flats"), "{error}");
}

#[test]
fn a_wrong_type_names_its_key() {
    let error = parse("[center]\nheights = 'many'\n", "a.toml", &[]).unwrap_err();
    assert!(error.to_string().contains("center.heights"), "{error}");
}

#[test]
fn flags_win_over_the_file() {
    let over = [
        ("difference.sigma".to_string(), "4".to_string()),
        ("run.device".to_string(), "cpu".to_string()),
    ];
    let config = parse("[difference]\nsigma = 3.0\n", "a.toml", &over).unwrap();
    assert_eq!(
        (config.difference.sigma, config.run.device.as_str()),
        (4.0, "cpu")
    );
}

#[test]
fn the_previous_scan_can_be_the_reference() {
    let scans = "[[scan]]\nname = \"a\"\npath = \"a\"\n[[scan]]\nname = \"b\"\npath = \"b\"\n[[scan]]\nname = \"c\"\npath = \"c\"\n";
    let of = |text: &str| -> Vec<Option<String>> {
        let config = parse(&format!("{text}{scans}"), "x", &[]).unwrap();
        config.validate().unwrap();
        config
            .scan
            .iter()
            .map(|scan| config.reference_of(scan).map(str::to_string))
            .collect()
    };
    let some = |name: &str| Some(name.to_string());
    assert_eq!(
        of("[series]\nreference = \"previous\"\n"),
        [None, some("a"), some("b")]
    );
    assert_eq!(of(""), [None, some("a"), some("a")]);
    // a scan of that name is meant by its name
    let named = scans.replace("\"a\"", "\"previous\"");
    let config = parse(
        &format!("[series]\nreference = \"previous\"\n{named}"),
        "x",
        &[],
    )
    .unwrap();
    assert_eq!(config.reference_of(&config.scan[2]), Some("previous"));
}

#[test]
fn memory_has_units() {
    let bytes = |text: &str| {
        RunConfig {
            memory: text.into(),
            ..RunConfig::default()
        }
        .memory_bytes()
    };
    assert_eq!(bytes("12GiB").unwrap(), Some(12 << 30));
    assert_eq!(bytes("500MB").unwrap(), Some(500_000_000));
    assert!(bytes("lots").is_err() && bytes("-3GiB").is_err() && bytes("0").is_err());
}

#[test]
fn a_resolved_config_reads_back_the_same() {
    let config = Config {
        mass: Some(MassConfig::default()),
        ..Config::default()
    };
    assert_eq!(
        parse(&toml::to_string(&config).unwrap(), "again", &[]).unwrap(),
        config
    );
}

/// A value that each rule refuses, laid over a config that is sound otherwise.
#[test]
fn a_broken_rule_names_its_key() {
    let broken = [
        ("series.pixel_size_um", "0.0"),
        ("run.stall_warning", "-1.0"),
        ("run.memory", "lots"),
        ("run.device", "gpu:0,0"),
        ("correct.floor_counts", "-1.0"),
        ("correct.min_transmission", "0.9"),
        ("correct.double_flat", "-1.0"),
        ("correct.zinger.threshold", "0.0"),
        ("correct.zinger.size", "0"),
        ("correct.lock.ratio", "0.5"),
        ("correct.lock.projections", "3"),
        ("correct.beam.air", "9..3"),
        ("correct.beam.air_columns", "0"),
        ("correct.spots.threshold", "0.0"),
        ("correct.spots.grow", "1e3"),
        ("correct.spots.sigma", "0.0"),
        ("correct.stripe.snr", "0.0"),
        ("correct.stripe.large_size", "0"),
        ("correct.stripe.small_size", "0"),
        ("correct.stripe.drop_ratio", "1.0"),
        ("correct.stripe.fit_order", "10"),
        ("correct.stripe.filter_sigma", "0.0"),
        ("correct.stripe.fit_sigma", "0.0"),
        ("correct.stripe.normalize_sigma", "0.0"),
        ("correct.stripe.wavelet_levels", "0"),
        ("correct.stripe.wavelet_order", "21"),
        ("correct.stripe.wavelet_sigma", "0.0"),
        ("correct.stripe.regularization_alpha", "0.0"),
        ("correct.stripe.fft_cutoff", "0.0"),
        ("correct.stripe.fft_order", "0"),
        ("correct.stripe.fft_rows", "1001"),
        ("center.search_px", "-1.0"),
        ("center.heights", "0"),
        ("center.rows_per_height", "0"),
        ("center.max_lean_deg", "46.0"),
        ("center.tolerance_px", "nan"),
        ("reconstruct.cutoff", "1.5"),
        ("reconstruct.padding", "0.5"),
        ("reconstruct.upsample", "3"),
        ("reconstruct.sample_diameter_mm", "-1.0"),
        ("reconstruct.mask_radius", "-0.1"),
        ("reconstruct.binning", "0"),
        ("reconstruct.level_above", "-1.0"),
        ("reconstruct.rows", "9..3"),
        ("reconstruct.crop", "1..3"),
        ("reconstruct.grid.shift", "[1e6, 0.0, 0.0]"),
        ("reconstruct.grid.rotation", "361.0"),
        ("reconstruct.grid.scale", "2.0"),
        ("align.search", "0.9"),
        ("align.min_confidence", "2.0"),
        ("align.max_tilt_deg", "6.0"),
        ("align.rotation", "[4.0, 4.0, 0.0]"),
        ("difference.sigma", "-1.0"),
        ("difference.smooth_sigma", "-1.0"),
        ("difference.smooth_median", "4"),
        ("difference.absolute", "0.0"),
        ("difference.null_share", "2.0"),
        ("difference.fdr", "0.9"),
        ("difference.grow", "9"),
        ("difference.connectivity", "7"),
        ("difference.radius", "0.0"),
        ("difference.histogram_bins", "1"),
        ("mass.mass_attenuation_cm2_g", "0.0"),
        ("mass.mass_attenuation_rel_err", "2.0"),
        ("mass.electrode_area_cm2", "-1.0"),
        ("mass.molar_mass_g_mol", "0.0"),
        ("mass.valence", "0"),
        ("mass.charge_rel_err", "2.0"),
    ];
    let judged =
        |over: &[(String, String)]| parse("", "flags", over).and_then(|config| config.validate());
    assert!(judged(&[]).is_ok());
    for (key, value) in broken {
        let error = judged(&[(key.to_string(), value.to_string())]).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{key}: {error}");
        assert!(error.to_string().contains(key), "{key}: {error}");
    }
    let phase = |key: &str| (format!("correct.phase.{key}"), "1.0".to_string());
    let paganin = ("correct.phase.method".to_string(), "paganin".to_string());
    let error = judged(&[paganin.clone(), phase("distance_mm"), phase("delta_beta")]).unwrap_err();
    assert!(error.to_string().contains("phase.energy_kev"), "{error}");
    let all = ["distance_mm", "delta_beta", "energy_kev"].map(phase);
    assert!(judged(&[&[paganin][..], &all].concat()).is_ok());
}
